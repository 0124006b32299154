//! The engines against each other on models of many shapes.
