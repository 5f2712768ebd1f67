//! The folder that `dcz compress --report` writes: a page, and the run's own line of JSON.

use std::path::Path;

use dcz_compress::error::Error;
use dcz_compress::html::{Page, page};
use dcz_compress::settings::read_text;
use serde_json::Value;

use super::target::{check_target, write_text};

/// Name of the page.
const PAGE: &str = "report.html";
/// Name of the run's own figures.
const RUN: &str = "compress.json";

/// Finds out before the work whether the folder can be written; makes it when it is not there.
pub fn prepare(folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
    check_target(&folder.join(PAGE))?;
    check_target(&folder.join(RUN))
}

/// The JSON files of the folder, other than the run's own; those that are no JSON are named on stderr.
pub fn measured(folder: &Path) -> Result<Vec<(String, Value)>, Error> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, &e))? {
        let entry = entry.map_err(|e| Error::io(folder, &e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") && name != RUN {
            names.push(name);
        }
    }
    names.sort();
    let mut list = Vec::new();
    for name in names {
        let text = read_text(&folder.join(&name))?;
        match serde_json::from_str(&text) {
            Ok(value) => list.push((name, value)),
            Err(error) => eprintln!("note: {name} is left out of the report: {error}"),
        }
    }
    Ok(list)
}

/// Writes page and figures.
pub fn write(folder: &Path, content: &Page<'_>, run: &Value) -> Result<(), Error> {
    write_text(&folder.join(RUN), &format!("{run}\n"))?;
    write_text(&folder.join(PAGE), &page(content))
}
