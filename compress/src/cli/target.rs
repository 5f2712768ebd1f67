//! Files that appear whole or not at all.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use dcz_compress::error::Error;

/// Finds out before the work whether the result can be written.
pub fn check_target(path: &Path) -> Result<(), Error> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => {
            return Err(Error::Io(format!(
                "{}: exists and is not a regular file",
                path.display()
            )));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io(path, &error)),
    }
    let folder = folder_of(path);
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Error::Io(format!("{}: not a folder", folder.display()))),
        Err(error) => Err(Error::io(folder, &error)),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."))
}

/// Writes a text file that appears whole or not at all.
pub fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    let partial = Partial::beside(path)?;
    std::fs::write(&partial.path, text).map_err(|e| Error::io(path, &e))?;
    partial.rename_to(path)
}

/// A file beside the target that is removed unless it becomes the target.
pub struct Partial {
    /// Where it is.
    pub path: PathBuf,
}

impl Partial {
    /// A name in the target's folder; makes no file.
    pub fn beside(target: &Path) -> Result<Partial, Error> {
        let name = target
            .file_name()
            .ok_or_else(|| Error::Usage(format!("{}: not a file name", target.display())))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.new", std::process::id()));
        Ok(Partial {
            path: folder_of(target).join(hidden),
        })
    }

    /// Becomes the target, with the permissions of what it replaces.
    pub fn rename_to(self, target: &Path) -> Result<(), Error> {
        if let Ok(old) = std::fs::metadata(target) {
            // Keep the permissions of what is replaced.
            std::fs::set_permissions(&self.path, old.permissions())
                .map_err(|e| Error::io(&self.path, &e))?;
        }
        std::fs::rename(&self.path, target).map_err(|e| Error::io(target, &e))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already when it was renamed.
        let _ = std::fs::remove_file(&self.path);
    }
}
