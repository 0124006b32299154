//! The figures of "Recommender Systems with Generative Retrieval" (Rajput et al., NeurIPS 2023),
//! to stand beside ours. Ranks are over all items, the protocol is the one of [`crate::evaluate`].

use crate::metrics::Metrics;

/// A row of a table: what, and Recall@5, NDCG@5, Recall@10, NDCG@10 on a data set.
type Row = (&'static str, [f64; 4]);

/// Table 1: methods on a data set, TIGER last.
pub(crate) fn methods(data: &str) -> &'static [Row] {
    match data {
        "sports" => &[
            ("P5", [0.0061, 0.0041, 0.0095, 0.0052]),
            ("Caser", [0.0116, 0.0072, 0.0194, 0.0097]),
            ("HGN", [0.0189, 0.0120, 0.0313, 0.0159]),
            ("GRU4Rec", [0.0129, 0.0086, 0.0204, 0.0110]),
            ("BERT4Rec", [0.0115, 0.0075, 0.0191, 0.0099]),
            ("FDSA", [0.0182, 0.0122, 0.0288, 0.0156]),
            ("SASRec", [0.0233, 0.0154, 0.0350, 0.0192]),
            ("S3-Rec", [0.0251, 0.0161, 0.0385, 0.0204]),
            ("TIGER", [0.0264, 0.0181, 0.0400, 0.0225]),
        ],
        "beauty" => &[
            ("P5", [0.0163, 0.0107, 0.0254, 0.0136]),
            ("Caser", [0.0205, 0.0131, 0.0347, 0.0176]),
            ("HGN", [0.0325, 0.0206, 0.0512, 0.0266]),
            ("GRU4Rec", [0.0164, 0.0099, 0.0283, 0.0137]),
            ("BERT4Rec", [0.0203, 0.0124, 0.0347, 0.0170]),
            ("FDSA", [0.0267, 0.0163, 0.0407, 0.0208]),
            ("SASRec", [0.0387, 0.0249, 0.0605, 0.0318]),
            ("S3-Rec", [0.0387, 0.0244, 0.0647, 0.0327]),
            ("TIGER", [0.0454, 0.0321, 0.0648, 0.0384]),
        ],
        "toys" => &[
            ("P5", [0.0070, 0.0050, 0.0121, 0.0066]),
            ("Caser", [0.0166, 0.0107, 0.0270, 0.0141]),
            ("HGN", [0.0321, 0.0221, 0.0497, 0.0277]),
            ("GRU4Rec", [0.0097, 0.0059, 0.0176, 0.0084]),
            ("BERT4Rec", [0.0116, 0.0071, 0.0203, 0.0099]),
            ("FDSA", [0.0228, 0.0140, 0.0381, 0.0189]),
            ("SASRec", [0.0463, 0.0306, 0.0675, 0.0374]),
            ("S3-Rec", [0.0443, 0.0294, 0.0700, 0.0376]),
            ("TIGER", [0.0521, 0.0371, 0.0712, 0.0432]),
        ],
        _ => &[],
    }
}

/// Table 2: TIGER with other semantic IDs.
pub(crate) fn ids(data: &str, method: &str) -> Option<Metrics> {
    let row = match (data, method) {
        (_, "rq-vae") => return tiger(data),
        ("sports", "lsh") => [0.0215, 0.0146, 0.0321, 0.0180],
        ("sports", "random") => [0.0070, 0.0050, 0.0116, 0.0063],
        ("beauty", "lsh") => [0.0379, 0.0259, 0.0533, 0.0309],
        ("beauty", "random") => [0.0296, 0.0205, 0.0434, 0.0250],
        ("toys", "lsh") => [0.0412, 0.0299, 0.0566, 0.0349],
        ("toys", "random") => [0.0362, 0.0270, 0.0448, 0.0298],
        _ => return None,
    };
    Some(metrics(row))
}

/// TIGER on a data set (table 1).
pub(crate) fn tiger(data: &str) -> Option<Metrics> {
    methods(data).last().map(|&(_, row)| metrics(row))
}

/// TIGER with other numbers of layers (appendix, Beauty).
pub(crate) fn layers(data: &str, layers: u64) -> Option<Metrics> {
    match (data, layers) {
        ("beauty", 3) => Some(metrics([0.04499, 0.03062, 0.06699, 0.03768])),
        ("beauty", 5) => Some(metrics([0.04633, 0.03206, 0.06596, 0.03834])),
        ("beauty", 4) => tiger(data),
        _ => None,
    }
}

/// TIGER without the user token (appendix, Beauty).
pub(crate) fn without_user(data: &str) -> Option<Metrics> {
    (data == "beauty").then(|| metrics([0.04458, 0.0302, 0.06479, 0.0367]))
}

/// Entropy of the categories among the top 10, 20 and 50 at a temperature (section 4.3, Beauty).
pub(crate) fn entropy(data: &str, temperature: f64) -> Option<[f64; 3]> {
    match (data, (temperature * 10.0).round() as i64) {
        ("beauty", 10) => Some([0.76, 1.14, 1.70]),
        ("beauty", 15) => Some([1.14, 1.52, 2.06]),
        ("beauty", 20) => Some([1.38, 1.76, 2.28]),
        _ => None,
    }
}

/// The metrics of a row of table 1.
pub(crate) fn metrics([recall_5, ndcg_5, recall_10, ndcg_10]: [f64; 4]) -> Metrics {
    Metrics { recall_5, ndcg_5, recall_10, ndcg_10 }
}
