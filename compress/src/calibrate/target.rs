//! What the compressed network has to reach.

use std::str::FromStr;

/// The target of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// At most so many bytes.
    Size(u64),
    /// Smaller than float32 weights by this factor.
    Ratio(f64),
    /// Mean cosine between the outputs of both networks on held-out images, at least.
    Cosine(f64),
    /// Loss of true positive rate at a false positive rate of 1e-3 on the images' own people, at most.
    TprDrop(f64),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let wrong = || {
            format!(
                "'{text}': expected size=1.9MB (B, kB, MB, KiB, MiB), ratio=12, cosine=0.995 or tpr-drop=0.002"
            )
        };
        let (kind, value) = text.split_once('=').ok_or_else(wrong)?;
        if kind == "size" {
            return size(value).map(Target::Size).ok_or_else(wrong);
        }
        let number: f64 = value.parse().map_err(|_| wrong())?;
        match kind {
            "ratio" if number.is_finite() && number >= 1.0 => Ok(Target::Ratio(number)),
            "ratio" => Err(format!(
                "'{text}': the ratio is float32 size over file size, at least 1"
            )),
            "cosine" if number > 0.0 && number < 1.0 => Ok(Target::Cosine(number)),
            "cosine" => Err(format!(
                "'{text}': a cosine between 0 and 1; 1 itself is the float network"
            )),
            "tpr-drop" if number > 0.0 && number < 1.0 => Ok(Target::TprDrop(number)),
            "tpr-drop" => Err(format!(
                "'{text}': a share between 0 and 1, for instance 0.002"
            )),
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Size(bytes) => write!(f, "size={bytes}B"),
            Target::Ratio(ratio) => write!(f, "ratio={ratio}"),
            Target::Cosine(cosine) => write!(f, "cosine={cosine}"),
            Target::TprDrop(drop) => write!(f, "tpr-drop={drop}"),
        }
    }
}

/// Bytes of `1.9MB`, `300kB`, `2MiB`, `1900000` or `1900000B`.
fn size(text: &str) -> Option<u64> {
    let units = [
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("kB", 1e3),
        ("KB", 1e3),
        ("MB", 1e6),
        ("B", 1.0),
    ];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, *unit)))
        .unwrap_or((text, 1.0));
    let bytes = number.trim().parse::<f64>().ok()? * unit;
    (bytes.is_finite() && (1.0..1e15).contains(&bytes)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_as_text() {
        assert_eq!("size=1.9MB".parse(), Ok(Target::Size(1_900_000)));
        assert_eq!("size=2MiB".parse(), Ok(Target::Size(2_097_152)));
        assert_eq!("size=512".parse(), Ok(Target::Size(512)));
        assert_eq!("ratio=12".parse(), Ok(Target::Ratio(12.0)));
        assert_eq!("cosine=0.995".parse(), Ok(Target::Cosine(0.995)));
        assert_eq!("tpr-drop=0.002".parse(), Ok(Target::TprDrop(0.002)));
        for bad in [
            "size=",
            "size=-3MB",
            "ratio=0.5",
            "cosine=1",
            "cosine=nan",
            "tpr-drop=2",
            "speed=3",
            "12",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
