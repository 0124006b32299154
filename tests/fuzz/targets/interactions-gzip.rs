#![no_main]

tigret_fuzz::target!("interactions-gzip");
