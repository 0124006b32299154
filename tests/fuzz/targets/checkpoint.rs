#![no_main]

tigret_fuzz::target!("checkpoint");
