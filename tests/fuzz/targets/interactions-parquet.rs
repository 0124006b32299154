#![no_main]

tigret_fuzz::target!("interactions-parquet");
