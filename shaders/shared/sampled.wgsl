// The distribution that sampling draws from: at each level the softmax of the log-probabilities
// over the temperature, over the live children of a beam only.

// A row: log(sum(exp(logits))) over the vocabulary, the largest log-probability of a live child,
// log(sum(exp((log-probability - largest) / temperature))) over the live children, unused.
//   normalisers: array<vec4f>

// Log-probability of a child given its parent, where `log_prob` is the model's.
fn sampled_log_prob(log_prob: f32, normaliser: vec4f, inverse_temperature: f32) -> f32 {
    // Finite at any temperature, but of what is no number: `max` may lose that.
    let scaled = (log_prob - normaliser.y) * inverse_temperature;
    return select(scaled, -1e30, scaled < -1e30) - normaliser.z;
}
