#![no_main]

tigret_fuzz::target!("amazon-reviews");
