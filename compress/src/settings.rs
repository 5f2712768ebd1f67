//! What to do with each layer: pruning, quantisation, bits, step, index.
//!
//! Settings come from three places, later ones win: the general options, a settings file (TOML, the same keys, general
//! ones at the top and one table per layer), and `--layer NAME:KEY=VALUE`.
//!
//! ```toml
//! quantize = "minmax"
//! bits = 7
//! index = "gaps:5"
//!
//! [layers.fc5]
//! prune = "percentile=73.97"
//! bits = 4
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use dcz_format::writer::IndexChoice;
use serde::Deserialize;
use serde::de::Error as _;

use crate::error::Error;

/// Which weights become zero.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Prune {
    /// None.
    #[default]
    None,
    /// Those of magnitude below the number.
    Manual(f64),
    /// This share of the layer, in percent, smallest magnitudes first.
    Percentile(f64),
    /// Those of magnitude below this many standard deviations of the layer.
    Sensitivity(f64),
}

impl FromStr for Prune {
    type Err = String;

    fn from_str(text: &str) -> Result<Prune, String> {
        let wrong = || format!("'{text}': expected none, manual=T, percentile=P or sensitivity=S");
        if text == "none" {
            return Ok(Prune::None);
        }
        let (kind, number) = text.split_once('=').ok_or_else(wrong)?;
        let number: f64 = number.parse().map_err(|_| wrong())?;
        if !(number.is_finite() && number >= 0.0) {
            return Err(format!("'{text}': the number must not be negative"));
        }
        match kind {
            "manual" => Ok(Prune::Manual(number)),
            "percentile" if number <= 100.0 => Ok(Prune::Percentile(number)),
            "percentile" => Err(format!("'{text}': at most 100 percent")),
            "sensitivity" => Ok(Prune::Sensitivity(number)),
            _ => Err(wrong()),
        }
    }
}

/// How weights become codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantize {
    /// Not at all: float32 as it is.
    None,
    /// `min + q * delta` over the surviving weights.
    Minmax,
    /// `q * step`, zero at 0.
    Grid,
    /// The layer's own values, at most 256.
    Codebook,
}

impl FromStr for Quantize {
    type Err = String;

    fn from_str(text: &str) -> Result<Quantize, String> {
        match text {
            "none" => Ok(Quantize::None),
            "minmax" => Ok(Quantize::Minmax),
            "grid" => Ok(Quantize::Grid),
            "codebook" => Ok(Quantize::Codebook),
            _ => Err(format!("'{text}': expected none, minmax, grid or codebook")),
        }
    }
}

/// How zeros are carried; [`IndexChoice`] with its text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexSetting(pub IndexChoice);

impl FromStr for IndexSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<IndexSetting, String> {
        Ok(IndexSetting(match text {
            "auto" => IndexChoice::Auto,
            "plain" => IndexChoice::Plain,
            "classes" => IndexChoice::Classes,
            "mask" => IndexChoice::Mask,
            "dense" => IndexChoice::Dense,
            "gaps" => IndexChoice::Gaps { bits: None },
            _ => {
                let bits = text
                    .strip_prefix("gaps:")
                    .and_then(|b| b.parse::<u8>().ok())
                    .filter(|b| (2..=8).contains(b));
                IndexChoice::Gaps { bits: Some(bits.ok_or_else(|| format!("'{text}': expected auto, plain, classes, mask, dense, gaps or gaps:BITS with 2 to 8 bits"))?) }
            }
        }))
    }
}

/// The keys of [`Settings`] as users write them.
const KEYS: [&str; 6] = ["prune", "prune-block", "quantize", "bits", "step", "index"];

/// Settings of a layer, or general ones; what is absent is decided elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Which weights become zero.
    #[serde(default, deserialize_with = "parsed")]
    pub prune: Option<Prune>,
    /// How many output channels are pruned together: 1, 2, 4 or 8.
    #[serde(rename = "prune-block")]
    pub prune_block: Option<u8>,
    /// How weights become codes.
    #[serde(default, deserialize_with = "parsed")]
    pub quantize: Option<Quantize>,
    /// Width of a code.
    pub bits: Option<u8>,
    /// Step of a grid, in standard deviations of the layer.
    pub step: Option<f32>,
    /// How zeros are carried.
    #[serde(default, deserialize_with = "parsed")]
    pub index: Option<IndexSetting>,
}

fn parsed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err = String>,
{
    String::deserialize(deserializer)?
        .parse()
        .map(Some)
        .map_err(D::Error::custom)
}

impl Settings {
    /// These settings, with `other`'s where it has any.
    pub fn overridden_by(self, other: Settings) -> Settings {
        Settings {
            prune: other.prune.or(self.prune),
            prune_block: other.prune_block.or(self.prune_block),
            quantize: other.quantize.or(self.quantize),
            bits: other.bits.or(self.bits),
            step: other.step.or(self.step),
            index: other.index.or(self.index),
        }
    }

    /// Sets one key from text.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "prune" => self.prune = Some(value.parse()?),
            "prune-block" => {
                let block = value
                    .parse()
                    .map_err(|_| format!("prune-block '{value}'"))?;
                self.prune_block = Some(block);
            }
            "quantize" => self.quantize = Some(value.parse()?),
            "bits" => self.bits = Some(value.parse().map_err(|_| format!("bits '{value}'"))?),
            "step" => self.step = Some(value.parse().map_err(|_| format!("step '{value}'"))?),
            "index" => self.index = Some(value.parse()?),
            _ => {
                return Err(format!("unknown key '{key}': expected {}", KEYS.join(", ")));
            }
        }
        self.check()
    }

    /// Checks the ranges of numbers.
    pub fn check(&self) -> Result<(), String> {
        if (self.prune_block).is_some_and(|block| ![1, 2, 4, 8].contains(&block)) {
            return Err("prune-block must be 1, 2, 4 or 8".into());
        }
        if self.bits.is_some_and(|bits| !(1..=8).contains(&bits)) {
            return Err("bits must be 1 to 8".into());
        }
        if self
            .step
            .is_some_and(|step| !(step.is_finite() && step > 0.0))
        {
            return Err("step must be positive".into());
        }
        Ok(())
    }
}

/// General settings and those of single layers.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct AllSettings {
    /// For every layer.
    pub general: Settings,
    /// By layer name.
    pub layers: BTreeMap<String, Settings>,
}

#[derive(Deserialize)]
struct SettingsFile {
    #[serde(default, deserialize_with = "parsed")]
    prune: Option<Prune>,
    #[serde(rename = "prune-block")]
    prune_block: Option<u8>,
    #[serde(default, deserialize_with = "parsed")]
    quantize: Option<Quantize>,
    bits: Option<u8>,
    step: Option<f32>,
    #[serde(default, deserialize_with = "parsed")]
    index: Option<IndexSetting>,
    #[serde(default)]
    layers: BTreeMap<String, Settings>,
    #[serde(flatten)]
    rest: BTreeMap<String, toml::Value>,
}

impl AllSettings {
    /// Parses a settings file.
    pub fn from_toml(text: &str) -> Result<AllSettings, Error> {
        let file: SettingsFile =
            toml::from_str(text).map_err(|e| Error::Input(one_line(&e.to_string())))?;
        if let Some(key) = file.rest.keys().next() {
            return Err(Error::Input(format!(
                "unknown key '{key}': expected {} or a table layers.NAME",
                KEYS.join(", ")
            )));
        }
        let general = Settings {
            prune: file.prune,
            prune_block: file.prune_block,
            quantize: file.quantize,
            bits: file.bits,
            step: file.step,
            index: file.index,
        };
        let settings = AllSettings {
            general,
            layers: file.layers,
        };
        for settings in settings.layers.values().chain([&settings.general]) {
            settings.check().map_err(Error::Input)?;
        }
        Ok(settings)
    }

    /// Reads a settings file.
    pub fn load(path: &Path) -> Result<AllSettings, Error> {
        let text = read_text(path)?;
        AllSettings::from_toml(&text).map_err(|e| Error::Input(format!("{}: {e}", path.display())))
    }

    /// Adds `NAME:KEY=VALUE`. The name may hold colons: the key begins after the last one before the first `=` behind it.
    pub fn add(&mut self, argument: &str) -> Result<(), Error> {
        let wrong = |why: &str| Error::Usage(format!("--layer '{argument}': {why}"));
        // Values may hold '=', names may hold ':'; a key holds neither.
        let split = KEYS
            .iter()
            .filter_map(|key| argument.rfind(&format!(":{key}=")).map(|at| (at, *key)))
            .min();
        let Some((at, key)) = split else {
            return Err(wrong(&format!(
                "expected NAME:KEY=VALUE with a key of {}",
                KEYS.join(", ")
            )));
        };
        let (name, value) = (&argument[..at], &argument[at + key.len() + 2..]);
        if name.is_empty() {
            return Err(wrong("no layer name"));
        }
        self.layers
            .entry(name.to_string())
            .or_default()
            .set(key, value)
            .map_err(|e| wrong(&e))
    }

    /// What holds for a layer.
    pub fn of(&self, layer: &str) -> Settings {
        self.general
            .overridden_by(self.layers.get(layer).copied().unwrap_or_default())
    }

    /// Checks that every named layer exists.
    pub fn check_names<'a>(
        &self,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(), Error> {
        for name in self.layers.keys() {
            if !known.clone().any(|k| k == name) {
                let list: Vec<&str> = known.clone().take(8).collect();
                let more = known.clone().count().saturating_sub(list.len());
                let tail = if more > 0 {
                    format!(" and {more} more")
                } else {
                    String::new()
                };
                return Err(Error::Usage(format!(
                    "no layer is called '{name}'; the layers are {}{tail}",
                    list.join(", ")
                )));
            }
        }
        Ok(())
    }
}

/// Reads a text file.
///
/// Errors: [`Error::Io`] when it cannot be read, [`Error::Input`] when it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::Input(format!("{}: not a text in UTF-8", path.display())))
}

/// A message of several lines as one.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_arguments() {
        let mut settings = AllSettings::default();
        settings.add("fc5:bits=4").unwrap();
        settings.add("model/conv:0:prune=percentile=73.97").unwrap();
        settings.add("fc5:index=gaps:5").unwrap();
        settings.add("fc5:prune-block=4").unwrap();
        assert_eq!(settings.of("fc5").prune_block, Some(4));
        assert_eq!(settings.of("fc5").bits, Some(4));
        assert_eq!(
            settings.of("fc5").index,
            Some(IndexSetting(IndexChoice::Gaps { bits: Some(5) }))
        );
        assert_eq!(
            settings.of("model/conv:0").prune,
            Some(Prune::Percentile(73.97))
        );
        for bad in [
            "fc5",
            "fc5:colour=1",
            ":bits=4",
            "fc5:bits=9",
            "fc5:prune=percentile=101",
            "fc5:step=-1",
            "fc5:index=gaps:9",
            "fc5:prune-block=3",
        ] {
            assert!(settings.add(bad).is_err(), "{bad}");
        }
        assert!(settings.check_names(["fc5"].into_iter()).is_err());
    }

    #[test]
    fn files_and_precedence() {
        let mut settings = AllSettings::from_toml(
            "quantize = 'minmax'\nbits = 7\n[layers.fc5]\nbits = 4\nprune = 'manual=0.5'\n",
        )
        .unwrap();
        assert_eq!(
            settings.of("fc5"),
            Settings {
                bits: Some(4),
                prune: Some(Prune::Manual(0.5)),
                quantize: Some(Quantize::Minmax),
                ..Settings::default()
            }
        );
        assert_eq!(settings.of("other").bits, Some(7));
        settings.add("fc5:bits=3").unwrap();
        assert_eq!(settings.of("fc5").bits, Some(3));
        for bad in [
            "bits = 9",
            "prune-block = 5",
            "colour = 1",
            "[layers.a]\ncolour = 1",
            "quantize = 'best'",
            "bits = 'many'",
        ] {
            assert!(
                matches!(AllSettings::from_toml(bad), Err(Error::Input(_))),
                "{bad}"
            );
        }
    }
}
