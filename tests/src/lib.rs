//! Shared helpers of the end-to-end tests: the tools as a user runs them, real networks when they are there, and
//! generated networks when they are not.

pub mod faces;
pub mod generated;
pub mod markers;
pub mod photos;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The folder with real networks and faces (`DCZ_SHARED`), or `None` with a line that says the test was skipped.
pub fn shared(test: &str) -> Option<PathBuf> {
    match std::env::var_os("DCZ_SHARED") {
        Some(folder) if PathBuf::from(&folder).is_dir() => Some(PathBuf::from(folder)),
        _ => {
            eprintln!(
                "skipped: {test} needs the folder named by DCZ_SHARED (real networks and faces)"
            );
            None
        }
    }
}

/// Path of a command-line tool of this workspace (`dcz` or `infer`), built once per test process with the profile of
/// the tests.
///
/// # Panics
/// When the tools cannot be built: a test that needs them must fail.
pub fn tool(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| build(&["-p", "dcz-infer", "-p", "dcz-compress"]));
    folder.join(name)
}

/// Path of an example program of `dcz-face`, built once per test process.
///
/// # Panics
/// When it cannot be built.
pub fn example(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| build(&["-p", "dcz-face", "--examples"]));
    folder.join("examples").join(name)
}

/// Builds with the profile of the tests and answers the folder of programs.
fn build(what: &[&str]) -> PathBuf {
    let release = !cfg!(debug_assertions);
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--locked"]).args(what);
    if release {
        command.arg("--release");
    }
    let status = command
        .current_dir(root())
        .status()
        .unwrap_or_else(|error| panic!("cargo build: {error}"));
    assert!(status.success(), "{what:?} do not build");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join(if release { "release" } else { "debug" })
}

/// Root of the workspace.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Result of a tool: exit code, stdout, stderr.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// The last line of stdout, parsed as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("not JSON: {error}: {last:?}; stderr: {}", self.stderr))
    }

    /// Asserts the exit code and returns self, so that a failure shows what the tool said.
    ///
    /// # Panics
    /// When the code differs.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Ran {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }
}

/// Runs a tool with arguments.
///
/// # Panics
/// When it cannot be started.
pub fn run<S: AsRef<std::ffi::OsStr>>(name: &str, arguments: &[S]) -> Ran {
    run_program(&tool(name), arguments)
}

/// Runs a program with arguments.
///
/// # Panics
/// When it cannot be started.
pub fn run_program<S: AsRef<std::ffi::OsStr>>(program: &Path, arguments: &[S]) -> Ran {
    let output: Output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
