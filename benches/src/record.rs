//! Output of every subject: a table for people, `--json` for programs, `--record` for the history.
//!
//! A record is `DIR/MACHINE/DATE.json` with one entry per subject and run: when it began, the load average before and
//! after (a figure measured beside other work says so), the version, and the rows of `--json`.

use crate::Result;
use crate::child::seconds_since_1970;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Options for output.
#[derive(Clone, Debug, clap::Args)]
pub struct Output {
    /// One line of JSON instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Add the results to the record of this machine and day.
    #[arg(long)]
    pub record: bool,
    /// Directory of the records.
    #[arg(long, value_name = "DIR", default_value = "benches/record")]
    pub record_dir: PathBuf,
    /// Name of this machine in the records; by default its processor and number of cores.
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
}

/// A measurement in progress.
#[derive(Debug)]
pub struct Report {
    subject: &'static str,
    began: f64,
    load_before: Option<[f64; 3]>,
    rows: Vec<Value>,
}

impl Report {
    /// Begins now.
    pub fn begin(subject: &'static str) -> Report {
        Report {
            subject,
            began: seconds_since_1970(),
            load_before: load_average(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, row: Value) {
        self.rows.push(row);
    }

    /// Prints the JSON and writes the record, as asked for.
    pub fn finish(self, output: &Output) -> Result<()> {
        let (date, time) = date_and_time(self.began);
        let entry = json!({
            "subject": self.subject,
            "began": time,
            "cores_allowed": cores_allowed(),
            "load_average": { "before": self.load_before, "after": load_average() },
            "version": env!("CARGO_PKG_VERSION"),
            "rows": self.rows,
        });
        if output.json {
            println!("{entry}");
        } else if let (Some(before), Some(after)) = (self.load_before, load_average()) {
            println!(
                "load average {:.1} before, {:.1} after",
                before[0], after[0]
            );
        }
        if output.record {
            let machine = Machine::this();
            let name = output.machine.clone().unwrap_or_else(|| machine.name());
            let file = output.record_dir.join(name).join(format!("{date}.json"));
            append(&file, &date, &machine, entry)?;
            eprintln!("bench: recorded in {}", file.display());
        }
        Ok(())
    }
}

/// Adds an entry to a record file, which is replaced in one step.
fn append(file: &Path, date: &str, machine: &Machine, entry: Value) -> Result<()> {
    let mut record = match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => json!({
            "date": date,
            "machine": { "cpu": machine.cpu, "cores": machine.cores, "os": std::env::consts::OS, "arch": std::env::consts::ARCH },
            "entries": [],
        }),
        Err(error) => return Err(error.into()),
    };
    let entries = record.get_mut("entries").and_then(Value::as_array_mut);
    entries
        .ok_or_else(|| format!("{}: not a record", file.display()))?
        .push(entry);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = file.with_extension("json.new");
    std::fs::write(&new, lines(&record))?;
    std::fs::rename(&new, file)?;
    Ok(())
}

/// A record as JSON with one line per row, so that differences of two records can be read.
fn lines(record: &Value) -> String {
    let list = |value: &Value, line: &dyn Fn(&Value) -> String| -> String {
        let lines: Vec<String> = value.as_array().into_iter().flatten().map(line).collect();
        format!("[\n{}\n]", lines.join(",\n"))
    };
    let entry = |entry: &Value| -> String {
        let fields = entry.as_object().into_iter().flatten();
        let fields = fields.filter(|(key, _)| *key != "rows");
        let head: String = fields
            .map(|(key, value)| format!("{}:{value},", json!(key)))
            .collect();
        format!(
            "{{{head}\"rows\":{}}}",
            list(&entry["rows"], &Value::to_string)
        )
    };
    format!(
        "{{\"date\":{},\"machine\":{},\"entries\":{}}}\n",
        record["date"],
        record["machine"],
        list(&record["entries"], &entry)
    )
}

/// What the figures depend on.
struct Machine {
    cpu: String,
    cores: usize,
}

impl Machine {
    fn this() -> Machine {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "model name").then(|| value.trim().to_string())
        });
        Machine {
            cpu: name.unwrap_or_else(|| std::env::consts::ARCH.to_string()),
            // All of the machine's: what this process may use depends on how it was started.
            cores: match text.lines().filter(|l| l.starts_with("processor")).count() {
                0 => cores_allowed(),
                cores => cores,
            },
        }
    }

    /// Letters and digits of the processor's name, and the cores.
    fn name(&self) -> String {
        let words = self.cpu.split(|c: char| !c.is_ascii_alphanumeric());
        let mut name: Vec<String> = words
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        name.push(format!("{}c", self.cores));
        name.join("-")
    }
}

/// Cores this process may use.
fn cores_allowed() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Load averages of 1, 5 and 15 minutes, where the system tells.
pub fn load_average() -> Option<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut numbers = text.split_whitespace().map_while(|word| word.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}

/// `YYYY-MM-DD` and `HH:MM` in universal time.
fn date_and_time(seconds: f64) -> (String, String) {
    let seconds = seconds as u64;
    // Days to a date of the Gregorian calendar, by eras of 400 years that begin in March.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let minutes = seconds % 86_400 / 60;
    (
        format!("{year:04}-{month:02}-{day:02}"),
        format!("{:02}:{:02}", minutes / 60, minutes % 60),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, date, time) in [
            (0.0, "1970-01-01", "00:00"),
            (951_827_700.0, "2000-02-29", "12:35"),
            (1_735_689_599.0, "2024-12-31", "23:59"),
            (4_107_542_400.0, "2100-03-01", "00:00"),
        ] {
            assert_eq!(date_and_time(seconds), (date.to_string(), time.to_string()));
        }
    }

    #[test]
    fn records_grow() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("machine/2000-01-01.json");
        let machine = Machine {
            cpu: "Some (R) CPU @ 2".into(),
            cores: 2,
        };
        assert_eq!(machine.name(), "some-r-cpu-2-2c");
        for subject in ["a", "b"] {
            let entry = json!({ "subject": subject, "load": { "before": [1] }, "rows": [{ "ms": 1.5 }, {}] });
            append(&file, "2000-01-01", &machine, entry).unwrap();
        }
        let record: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(record["entries"][1]["subject"], "b");
        assert_eq!(record["entries"][0]["rows"][0]["ms"], 1.5);
        assert_eq!(record["entries"][0]["load"]["before"][0], 1);
        assert_eq!(record["machine"]["cores"], 2);
        std::fs::write(&file, "[]").unwrap();
        assert!(append(&file, "2000-01-01", &machine, json!({})).is_err());
    }
}
