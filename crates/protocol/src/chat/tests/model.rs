//! The hub beside a naive model.
