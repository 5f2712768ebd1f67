//! Runs convolutional networks from `.dcz` files.
pub mod shape;
