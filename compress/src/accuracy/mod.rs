//! How well a network tells faces apart: embeddings of a folder, verification figures, differences with intervals.
//!
//! `pairs` reads the list of LFW pairs, `images` turns files into inputs (through the alignment of `dcz-face` when there
//! are landmarks), `embed` runs a network over them on all cores, `figures` computes accuracy, true positive rates and
//! the contest's z, `bootstrap` the interval of the difference between two networks.
//!
//! Similarity is the cosine, or minus the distance for networks compared by distance; larger is more alike. The
//! threshold for a false positive rate f among n pairs of different people is the one at rank floor(f n) in descending
//! order, and pairs at or above it count as positive: the contest's rule, used throughout.

pub mod bootstrap;
pub mod embed;
pub mod figures;
pub mod images;
pub mod pairs;
