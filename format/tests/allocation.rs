//! Decoding allocates nothing once the decoder is made, whatever the source.
#![allow(clippy::unwrap_used)]
mod common;

use common::*;
use dcz_format::graph::LayerId;
use dcz_format::{
    Container, Limits, MemoryBytes, PositionedFile, Source, TileDecoder, TileForm, TileOut,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: forwards to the system allocator; the counter is thread-local and needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn decoding_allocates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.dcz");
    let bytes = write(vec![network("n", 1)], &options());
    std::fs::write(&path, &bytes).unwrap();
    let sources: [Arc<dyn Source>; 2] = [
        Arc::new(MemoryBytes::new(bytes)),
        Arc::new(PositionedFile::open(&path).unwrap()),
    ];
    for source in sources {
        let container = Container::open(source, &Limits::default()).unwrap();
        let decoders = [TileDecoder::new, TileDecoder::keeping_tables];
        let largest = container.networks()[0]
            .layers
            .iter()
            .flat_map(|l| &l.tiles)
            .map(|t| t.weights())
            .max()
            .unwrap();
        let mut values = vec![0.0; largest];
        let mut codes = vec![0; largest];
        for make in decoders {
            let mut decoder = make(&container, 0).unwrap();
            let before = COUNT.with(Cell::get);
            for (id, layer) in container.networks()[0].layers.iter().enumerate() {
                for (index, tile) in layer.tiles.iter().enumerate() {
                    let (id, len) = (LayerId(id as u32), tile.weights());
                    decoder
                        .decode(&container, 0, id, index, TileOut::F32(&mut values[..len]))
                        .unwrap();
                    if layer.form() != TileForm::F32 {
                        decoder
                            .decode(&container, 0, id, index, TileOut::Codes(&mut codes[..len]))
                            .unwrap();
                    }
                }
            }
            assert_eq!(COUNT.with(Cell::get), before);
        }
    }
}
