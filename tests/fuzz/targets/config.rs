#![no_main]

tigret_fuzz::target!("config");
