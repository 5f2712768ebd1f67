//! What is measured: the files in `benches/cases/`, or one given on the command line.

use crate::Result;
use crate::budget::Budget;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Networks and settings of `bench latency` and `bench memory`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Networks {
    /// Thread counts.
    pub threads: Vec<usize>,
    /// Memory budgets of `bench latency`.
    pub budgets: Vec<Budget>,
    /// Timed runs.
    pub runs: usize,
    /// The networks.
    #[serde(rename = "network")]
    pub networks: Vec<Case>,
}

/// A network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// How tables and records call it.
    pub name: String,
    /// The `.dcz` file, relative to the directory of models.
    pub file: PathBuf,
    /// The network within the file, when it has several.
    pub network: Option<String>,
}

/// Options for choosing networks.
#[derive(Clone, Debug, clap::Args)]
pub struct Choice {
    /// Measure these .dcz files instead of those of the cases.
    pub files: Vec<PathBuf>,
    /// Cases instead of the built-in ones (benches/cases/networks.toml).
    #[arg(long, value_name = "TOML")]
    pub cases: Option<PathBuf>,
    /// Directory of the files the cases name.
    #[arg(long, value_name = "DIR", default_value = "models")]
    pub models: PathBuf,
    /// Thread counts instead of those of the cases.
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    pub threads: Vec<usize>,
    /// Timed runs instead of those of the cases.
    #[arg(long)]
    pub runs: Option<usize>,
}

impl Choice {
    /// The networks to measure, with the paths of files that exist; the others are named on standard error.
    pub fn networks(&self) -> Result<Networks> {
        let built_in = include_str!("../cases/networks.toml");
        let mut networks: Networks = read(self.cases.as_deref(), built_in)?;
        if self.files.is_empty() {
            for case in &mut networks.networks {
                case.file = self.models.join(&case.file);
            }
            networks.networks.retain(|case| {
                let exists = case.file.is_file();
                if !exists {
                    eprintln!("bench: {} left out: no {}", case.name, case.file.display());
                }
                exists
            });
        } else {
            let case = |file: &PathBuf| Case {
                name: stem(file),
                file: file.clone(),
                network: None,
            };
            networks.networks = self.files.iter().map(case).collect();
        }
        if !self.threads.is_empty() {
            networks.threads.clone_from(&self.threads);
        }
        networks.runs = self.runs.unwrap_or(networks.runs).max(1);
        if networks.networks.is_empty() {
            return Err("nothing to measure; see --models".into());
        }
        Ok(networks)
    }
}

/// Parses the cases in `file`, or the built-in ones.
pub fn read<T: DeserializeOwned>(file: Option<&Path>, built_in: &str) -> Result<T> {
    let Some(file) = file else {
        return Ok(toml::from_str(built_in)?);
    };
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    toml::from_str(&text).map_err(|e| format!("{}: {e}", file.display()).into())
}

/// File name without its ending.
pub fn stem(file: &Path) -> String {
    file.file_stem()
        .map_or(String::new(), |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Networks, read};

    #[test]
    fn built_in_networks_parse() {
        let networks: Networks = read(None, include_str!("../cases/networks.toml")).unwrap();
        assert!(networks.networks.len() > 5 && networks.runs > 0);
    }
}
