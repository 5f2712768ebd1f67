//! Memory budgets as users write them.

use dcz::MemoryBudget;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// `min`, `max`, or bytes: `1600000`, `1.6MB` (10^6), `1.6MiB` (2^20), `900kB`, `900KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Budget {
    /// The smallest feasible.
    Min,
    /// Unlimited.
    Max,
    /// At most so many bytes.
    Bytes(u64),
}

impl Budget {
    /// The runtime's form.
    pub fn for_session(self) -> MemoryBudget {
        match self {
            Budget::Min => MemoryBudget::Min,
            Budget::Max => MemoryBudget::Max,
            Budget::Bytes(bytes) => MemoryBudget::Bytes(bytes),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Budget::Min => f.pad("min"),
            Budget::Max => f.pad("max"),
            Budget::Bytes(bytes) => f.pad(&bytes.to_string()),
        }
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Budget, String> {
        const UNITS: [(&str, f64); 4] = [
            ("KiB", 1024.0),
            ("MiB", 1_048_576.0),
            ("kB", 1e3),
            ("MB", 1e6),
        ];
        match text {
            "min" => return Ok(Budget::Min),
            "max" | "unlimited" => return Ok(Budget::Max),
            _ => {}
        }
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let (number, scale) = unit.map_or((text, 1.0), |(unit, scale)| {
            (text.trim_end_matches(unit), *scale)
        });
        match number.trim().parse::<f64>() {
            Ok(value) if value.is_finite() && value >= 0.0 => {
                Ok(Budget::Bytes((value * scale) as u64))
            }
            _ => Err(format!(
                "{text}: neither min, max nor a size such as 1.6MiB"
            )),
        }
    }
}

impl TryFrom<String> for Budget {
    type Error = String;
    fn try_from(text: String) -> Result<Budget, String> {
        text.parse()
    }
}

impl From<Budget> for String {
    fn from(budget: Budget) -> String {
        budget.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn sizes_and_names() {
        for (text, expected) in [
            ("min", Some(Budget::Min)),
            ("unlimited", Some(Budget::Max)),
            ("1500", Some(Budget::Bytes(1500))),
            ("1.5MB", Some(Budget::Bytes(1_500_000))),
            ("2 MiB", Some(Budget::Bytes(2_097_152))),
            ("-1", None),
            ("much", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
