//! The learning rate: linear warm-up, then inverse square root (paper, section 4).

/// Learning rate at a step (counted from 0).
pub fn learning_rate(peak: f64, warmup: u64, step: u64) -> f64 {
    let at = (step + 1) as f64;
    let warmup = warmup.max(1) as f64;
    peak * (at / warmup).min((warmup / at).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_peak_then_falls_with_the_square_root() {
        assert!((learning_rate(0.01, 100, 0) - 0.0001).abs() < 1e-12);
        assert!((learning_rate(0.01, 100, 99) - 0.01).abs() < 1e-12);
        assert!((learning_rate(0.01, 100, 399) - 0.005).abs() < 1e-12);
    }
}
