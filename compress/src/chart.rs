//! Line charts as SVG: a few series over a linear or logarithmic axis, without a single dependency, small enough to be put
//! into a page. Colours are those of Okabe and Ito, told apart by colour-blind readers.

use std::fmt::Write;

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Shown in the legend.
    pub name: String,
    /// x and y; points that are not finite, or not positive on a logarithmic axis, are left out.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Shown on top.
    pub title: String,
    /// Label of the horizontal axis.
    pub x: String,
    /// Label of the vertical axis.
    pub y: String,
    /// The horizontal axis is logarithmic.
    pub log_x: bool,
    /// The lines.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 52.0;
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

/// The range of an axis and how it is divided.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, log: bool) -> Axis {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| v.is_finite() && (!log || *v > 0.0)) {
            let value = if log { value.log10() } else { value };
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low < 1e-12 * high.abs().max(1.0) {
            (low, high) = (low - 0.5, high + 0.5);
        }
        Axis { low, high, log }
    }

    /// 0 to 1 within the range.
    fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        (value - self.low) / (self.high - self.low)
    }

    /// Values with a line and a label: powers of ten, or steps of 1, 2, 5 times a power of ten.
    fn ticks(&self) -> Vec<f64> {
        let span = self.high - self.low;
        let step = if self.log {
            (span / 8.0).ceil().max(1.0)
        } else {
            let raw = span / 6.0;
            let power = 10f64.powf(raw.log10().floor());
            let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= raw);
            factor.unwrap_or(10.0) * power
        };
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last)
            .map(|i| i as f64 * step)
            .map(|v| if self.log { 10f64.powf(v) } else { v })
            .collect()
    }
}

/// A number without digits that say nothing.
fn label(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e7) {
        format!("{value:.0e}")
    } else {
        format!("{rounded}")
    }
}

/// Text for XML.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Control characters are not allowed in XML.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

impl Chart {
    /// The chart as an SVG document.
    pub fn svg(&self) -> String {
        self.svg_naming(self.series.len())
    }

    /// The same with the first `named` lines in colour and in the legend, the others thin and grey behind them.
    pub fn svg_naming(&self, named: usize) -> String {
        let named = named.min(self.series.len());
        let points = || self.series.iter().flat_map(|s| &s.points);
        let x_axis = Axis::new(points().map(|p| p.0), self.log_x);
        let y_axis = Axis::new(points().map(|p| p.1), false);
        let (inner_w, inner_h) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let px = |x: f64| LEFT + x_axis.place(x) * inner_w;
        let py = |y: f64| TOP + (1.0 - y_axis.place(y)) * inner_h;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        let text = |out: &mut String, x: f64, y: f64, anchor: &str, extra: &str, text: &str| {
            let text = escape(text);
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{extra}>{text}</text>"
            );
        };
        let line = |out: &mut String, a: (f64, f64), b: (f64, f64)| {
            let _ = writeln!(
                out,
                "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
                a.0, a.1, b.0, b.1
            );
        };
        for tick in x_axis.ticks() {
            line(&mut out, (px(tick), TOP), (px(tick), TOP + inner_h));
            text(
                &mut out,
                px(tick),
                TOP + inner_h + 16.0,
                "middle",
                "",
                &label(tick),
            );
        }
        for tick in y_axis.ticks() {
            line(&mut out, (LEFT, py(tick)), (LEFT + inner_w, py(tick)));
            text(
                &mut out,
                LEFT - 6.0,
                py(tick) + 4.0,
                "end",
                "",
                &label(tick),
            );
        }
        text(
            &mut out,
            WIDTH / 2.0,
            22.0,
            "middle",
            " font-size=\"15\"",
            &self.title,
        );
        text(
            &mut out,
            LEFT + inner_w / 2.0,
            HEIGHT - 12.0,
            "middle",
            "",
            &self.x,
        );
        let turned = format!(" transform=\"rotate(-90 16 {:.1})\"", TOP + inner_h / 2.0);
        text(
            &mut out,
            16.0,
            TOP + inner_h / 2.0,
            "middle",
            &turned,
            &self.y,
        );
        let (coloured, grey) = self.series.split_at(named);
        let numbered = |list| std::iter::zip(0usize.., list);
        let grey = numbered(grey).map(|(_, series)| (None, series));
        for (place, series) in grey.chain(numbered(coloured).map(|(i, s)| (Some(i), s))) {
            let colour = place.map_or("#bbb", |i| COLOURS[i % COLOURS.len()]);
            let width = if place.is_some() { 1.8 } else { 0.8 };
            let drawn = series
                .points
                .iter()
                .filter(|p| p.0.is_finite() && p.1.is_finite() && (!self.log_x || p.0 > 0.0));
            let path: Vec<String> = drawn
                .map(|p| format!("{:.1},{:.1}", px(p.0), py(p.1)))
                .collect();
            let _ = writeln!(
                out,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" points=\"{}\"/>",
                path.join(" ")
            );
            let Some(i) = place else { continue };
            if path.len() <= 40 {
                for point in &path {
                    if let Some((x, y)) = point.split_once(',') {
                        let _ = writeln!(
                            out,
                            "<circle cx=\"{x}\" cy=\"{y}\" r=\"2.5\" fill=\"{colour}\"/>"
                        );
                    }
                }
            }
            let y = TOP + inner_h - 12.0 - 17.0 * (named - 1 - i) as f64;
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>",
                WIDTH - RIGHT - 24.0,
                y - 6.0
            );
            text(&mut out, WIDTH - RIGHT - 30.0, y, "end", "", &series.name);
        }
        out.push_str("</svg>\n");
        out
    }
}

/// Charts below one another as one document.
pub fn stacked(charts: &[String]) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\">\n",
        HEIGHT * charts.len() as f64
    );
    for (i, chart) in charts.iter().enumerate() {
        let place = format!(
            "<svg y=\"{}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" ",
            HEIGHT * i as f64
        );
        out.push_str(&chart.replacen("<svg ", &place, 1));
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: "a < b & c".into(),
            x: "x".into(),
            y: "y".into(),
            log_x: true,
            series: vec![Series {
                name: "s".into(),
                points,
            }],
        }
    }

    #[test]
    fn a_chart_is_well_formed_whatever_the_points() {
        for points in [
            vec![],
            vec![(0.0, 1.0), (f64::NAN, 2.0)],
            vec![(1e-4, 0.5), (1.0, 0.5)],
            vec![(1e-4, 0.1), (1e-2, f64::INFINITY), (1.0, 0.9)],
        ] {
            let svg = chart(points).svg();
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
            assert!(svg.contains("a &lt; b &amp; c"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        let svg = chart(vec![(1e-4, 0.1), (1.0, 0.9)]).svg();
        assert!(svg.contains("points=\"72.0,388.0 704.0,36.0\""), "{svg}");
    }

    #[test]
    fn ticks_are_round() {
        let axis = Axis::new([0.13, 0.97].into_iter(), false);
        assert_eq!(
            axis.ticks().iter().map(|v| label(*v)).collect::<Vec<_>>(),
            ["0.2", "0.4", "0.6", "0.8"]
        );
        let axis = Axis::new([1e-6, 1.0].into_iter(), true);
        assert_eq!(axis.ticks().len(), 7);
    }
}
