//! The network against recorded values of the reference implementation, against differences in f64, and against
//! itself.

mod device;
mod fixtures;
mod gradients;
mod invariants;
mod parity;
mod reference;
mod traces;

pub(crate) use fixtures::device;
