//! An opened file: parsed, verified records and a cheap handle to share them. Decodes no weight.

use crate::error::{ErrorKind, Result};
use crate::resident::Residents;
use dcz_format::Container;
use dcz_format::graph::Network;
use dcz_format::limits::Limits;
use dcz_format::source::{MappedFile, MemoryBytes, Source};
use std::path::Path;
use std::sync::Arc;

/// A `.dcz` file, shared by any number of sessions and threads. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct Model {
    container: Arc<Container>,
    residents: Arc<Residents>,
}

impl Model {
    /// Maps a file and parses its records; no weight is read. The file must not be changed in place while it is open
    /// (replace it by renaming, as `dcz` does).
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        let path = path.as_ref();
        let file = MappedFile::open(path).map_err(|source| ErrorKind::Io {
            what: path.display().to_string(),
            source,
        })?;
        Model::from_source(Arc::new(file), &Limits::default())
    }

    /// The same from memory.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Model> {
        Model::from_source(Arc::new(MemoryBytes::new(bytes.into())), &Limits::default())
    }

    /// The same from any source (a positioned file, a decrypting reader), with the caller's limits.
    pub fn from_source(source: Arc<dyn Source>, limits: &Limits) -> Result<Model> {
        Ok(Model {
            container: Arc::new(Container::open(source, limits)?),
            residents: Arc::default(),
        })
    }

    /// The networks of the file: their graphs, preprocessing, outputs and records.
    pub fn networks(&self) -> &[Network] {
        self.container.networks()
    }

    /// Index of the network of this name, or of the only one. The error lists the names.
    pub fn find(&self, name: Option<&str>) -> Result<usize> {
        let networks = self.networks();
        let found = match name {
            Some(name) => networks.iter().position(|n| n.name == name),
            None => (networks.len() == 1).then_some(0),
        };
        found.ok_or_else(|| {
            let names = networks.iter().map(|n| n.name.clone()).collect();
            ErrorKind::Network {
                wanted: name.map(str::to_owned),
                names,
            }
            .into()
        })
    }

    /// The network of this name, or the only one. The error lists the names.
    pub fn network(&self, name: Option<&str>) -> Result<&Network> {
        let index = self.find(name)?;
        self.networks()
            .get(index)
            .ok_or_else(|| crate::error::Error::internal("network index"))
    }

    /// Weights that sessions keep in memory.
    pub(crate) fn residents(&self) -> &Residents {
        &self.residents
    }

    /// The container, for tools that look at sections and texts.
    pub fn container(&self) -> &Container {
        &self.container
    }
}
