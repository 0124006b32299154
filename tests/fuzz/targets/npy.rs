#![no_main]

tigret_fuzz::target!("npy");
