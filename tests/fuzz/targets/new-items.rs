#![no_main]

tigret_fuzz::target!("new-items");
