//! The project folder: parsed to a tree with positions, cross-checked, diagnosed.

pub mod model;
