//! Both disks by their public face.

mod conformance;
mod simulation;
