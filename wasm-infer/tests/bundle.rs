//! The bundle: what is written is read back, and what is damaged is refused by name.

use tigret_infer::testing::{Shape, bad_bundles, random_bundle, random_bundle_with_quantizer};
use tigret_infer::{Bundle, WeightFormat};

#[test]
fn a_written_bundle_reads_back_equal() {
    for format in [WeightFormat::F32, WeightFormat::Q8] {
        let bundle = random_bundle(&Shape::default(), format, 1);
        let read = Bundle::from_bytes(&bundle.to_bytes().unwrap()).unwrap();
        assert_eq!(read.config, bundle.config);
        assert_eq!(read.tokens, bundle.tokens);
        assert_eq!(read.weights(), bundle.weights());
        assert_eq!(read.catalog.ids(), bundle.catalog.ids());
        assert_eq!(read.catalog.codes(), bundle.catalog.codes());
        assert_eq!(read.weight_format, format);
        assert!(read.quantizer().is_none());
        let with = random_bundle_with_quantizer(&Shape::default(), format, 1);
        let read = Bundle::from_bytes(&with.to_bytes().unwrap()).unwrap();
        assert!(read.quantizer().is_some() && read.quantizer() == with.quantizer());
    }
}

#[test]
fn a_damaged_bundle_is_refused_with_the_field_named() {
    let bundle = random_bundle_with_quantizer(&Shape::default(), WeightFormat::Q8, 1);
    for (name, bytes, expected) in bad_bundles(&bundle) {
        match Bundle::from_bytes(&bytes) {
            Ok(_) => panic!("{name} is accepted"),
            Err(e) => assert!(e.to_string().contains(expected), "{name}: {e}"),
        }
    }
}

#[test]
fn no_single_flipped_byte_of_the_header_panics() {
    let bundle =
        random_bundle(&Shape { items: 5, layers: (1, 1), ..Shape::default() }, WeightFormat::Q8, 1);
    let good = bundle.to_bytes().unwrap();
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for at in 0..8 + header {
        for flip in [0x01, 0x20, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            // Refused or, where a byte is free (as in an unread name), accepted; never a panic.
            let _ = Bundle::from_bytes(&bytes);
        }
    }
}
