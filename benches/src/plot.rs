//! SVG plots.

use crate::Result;
use crate::child::Step;
use plotters::prelude::*;
use std::path::Path;

/// Points joined by a line, with a name in the legend.
pub struct Curve<'a> {
    /// Legend.
    pub name: &'a str,
    /// (x, y)
    pub points: Vec<(f64, f64)>,
}

const FONT: &str = "sans-serif";
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 90, 160),
    RGBColor(200, 80, 20),
    RGBColor(40, 130, 60),
    RGBColor(120, 60, 140),
];
/// Steps shown in a plot of steps: the longest.
const MOST_STEPS: usize = 40;

/// Curves over a logarithmic x axis; y begins at 0.
pub fn curves(file: &Path, title: &str, axes: [&str; 2], curves: &[Curve<'_>]) -> Result<()> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let low = all().map(|p| p.0).fold(f64::MAX, f64::min);
    let high = all().map(|p| p.0).fold(0.0, f64::max);
    let top = all().map(|p| p.1).fold(0.0, f64::max);
    if all().next().is_none() || low <= 0.0 || top <= 0.0 {
        return Err("nothing to draw".into());
    }
    let area = SVGBackend::new(file, (800, 500)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 20))
        .margin(12)
        .x_label_area_size(45)
        .y_label_area_size(60)
        .build_cartesian_2d(low.log2() - 0.3..high.log2() + 0.3, 0.0..top * 1.15)?;
    chart
        .configure_mesh()
        .x_label_formatter(&|x| format!("{:.1}", x.exp2()))
        .x_desc(axes[0])
        .y_desc(axes[1])
        .axis_desc_style((FONT, 15))
        .label_style((FONT, 13))
        .light_line_style(WHITE)
        .draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let points = || curve.points.iter().map(|&(x, y)| (x.log2(), y));
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points().map(|point| Circle::new(point, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.filled())
        .border_style(BLACK)
        .label_font((FONT, 14))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Times of the longest steps as horizontal bars in the order of execution: decoding, then the rest.
pub fn steps(file: &Path, title: &str, steps: &[Step]) -> Result<()> {
    let total = |step: &Step| step.decode_ms + step.compute_ms;
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by(|&a, &b| total(&steps[b]).total_cmp(&total(&steps[a])));
    order.truncate(MOST_STEPS);
    order.sort_unstable();
    let longest = steps.iter().map(total).fold(0.0, f64::max);
    if order.is_empty() || longest <= 0.0 {
        return Err("nothing to draw".into());
    }
    let count = order.len() as i32;
    let area = SVGBackend::new(file, (900, 90 + 18 * count as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let whole: f64 = steps.iter().map(total).sum();
    let shown: f64 = order.iter().map(|&i| total(&steps[i])).sum();
    let mut caption = format!("{title}: {whole:.2} ms");
    if order.len() < steps.len() {
        caption += &format!(", {shown:.2} ms of them shown");
    }
    let mut chart = ChartBuilder::on(&area)
        .caption(caption, (FONT, 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(200)
        // One unit of the y axis per step, the first on top.
        .build_cartesian_2d(0.0..longest * 1.05, 0..count)?;
    let name = |row: &i32| -> String {
        let row = usize::try_from(count - 1 - row);
        let step = row.ok().and_then(|row| order.get(row));
        let name = step.map_or("", |&index| steps[index].name.as_str());
        let skipped = name.chars().count().saturating_sub(28);
        name.chars().skip(skipped).collect()
    };
    chart
        .configure_mesh()
        .x_desc("ms: decoding (orange), computing (blue)")
        .y_labels(order.len())
        .y_label_formatter(&name)
        .y_label_offset(-9)
        .label_style((FONT, 12))
        .disable_y_mesh()
        .light_line_style(WHITE)
        .draw()?;
    let bars = order.iter().enumerate().flat_map(|(row, &index)| {
        let (step, row) = (&steps[index], count - 1 - row as i32);
        let bar = |from: f64, to: f64, colour: RGBColor| {
            let mut bar = Rectangle::new([(from, row), (to, row + 1)], colour.filled());
            bar.set_margin(2, 2, 0, 0);
            bar
        };
        [
            bar(0.0, step.decode_ms, COLOURS[1]),
            bar(step.decode_ms, total(step), COLOURS[0]),
        ]
    });
    chart.draw_series(bars)?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_name_what_they_show() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("curve.svg");
        let curve = Curve {
            name: "session",
            points: vec![(1.0, 30.0), (10.0, 20.0)],
        };
        curves(&file, "title", ["x axis", "y axis"], &[curve]).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        for word in ["<svg", "session", "title", "x axis", "y axis"] {
            assert!(text.contains(word), "{word}");
        }
        let step = Step {
            name: "conv_1".into(),
            op: "conv".into(),
            algorithm: None,
            decode_ms: 1.0,
            compute_ms: 2.0,
        };
        steps(&file, "title", &[step.clone(), step]).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("conv_1") && text.contains("6.00 ms"));
        assert!(steps(&file, "title", &[]).is_err());
        assert!(curves(&file, "title", ["", ""], &[]).is_err());
    }
}
