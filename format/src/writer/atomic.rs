//! Replacing a file: write a temporary file beside it, flush it to the disk, rename it.

use crate::error::{Error, ErrorKind, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Removes the temporary file unless it was renamed.
struct Temporary {
    path: PathBuf,
    keep: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing more can be done about it here.
            let _ = fs::remove_file(&self.path);
        }
    }
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error: io::Error| Error::io(error, format!("writing {}", path.display()));
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => {
            return Err(Error::new(
                ErrorKind::NotRegularFile,
                path.display().to_string(),
            ));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let Some(name) = path.file_name() else {
        return Err(Error::new(
            ErrorKind::NotRegularFile,
            path.display().to_string(),
        ));
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (mut file, mut temporary) = create(directory, &name.to_string_lossy()).map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    drop(file);
    if let Ok(old) = fs::metadata(path) {
        // Keep the permissions of what is replaced.
        fs::set_permissions(&temporary.path, old.permissions()).map_err(failed)?;
    }
    fs::rename(&temporary.path, path).map_err(failed)?;
    temporary.keep = true;
    // Makes the rename durable; not every system can open a directory, and the content is safe either way.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

fn create(directory: &Path, name: &str) -> io::Result<(File, Temporary)> {
    let process = std::process::id();
    for attempt in 0..1000 {
        let path = directory.join(format!(".{name}.{process}.{attempt}.tmp"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, Temporary { path, keep: false })),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
