#![no_main]

tigret_fuzz::target!("movielens");
