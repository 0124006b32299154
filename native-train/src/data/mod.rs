//! From raw files to a data set.
