#![no_main]

tigret_fuzz::target!("pipeline");
