//! Hierarchical k-means: a tree in which each cluster is clustered again.

use rand::Rng;
use tch::{Device, Kind, Tensor};

use super::kmeans::kmeans;
use crate::model::params::to_vec;

/// The tree as the quantiser holds it (`tigret_infer::Structure::Tree`).
#[derive(Debug)]
pub struct Tree {
    /// Centres `[nodes, input]` of each level, children of a node together.
    pub centres: Vec<Tensor>,
    /// Where the children of each node of the level before start, and where the last ones end.
    pub first_child: Vec<Vec<u32>>,
}

/// Clusters vectors `[items, input]` level by level, each node into at most `sizes[level]`.
///
/// A node of no more vectors than codes gives each vector a child of its own; below it there is
/// one child a node, since nothing is left to tell apart.
pub fn tree(data: &Tensor, sizes: &[i64], rng: &mut impl Rng) -> Tree {
    let mut nodes = vec![Tensor::arange(data.size()[0], (Kind::Int64, data.device()))];
    let mut tree = Tree { centres: Vec::new(), first_child: Vec::new() };
    for &size in sizes {
        let (mut centres, mut starts, mut children) = (Vec::new(), vec![0u32], Vec::new());
        for members in &nodes {
            let points = data.index_select(0, members);
            let count = points.size()[0];
            if count <= size {
                centres.push(points);
                children.extend(members.split(1, 0));
            } else {
                let clusters = kmeans(&points, size, rng);
                let groups = group(&clusters.nearest, size);
                // Equal vectors may leave a centre without points; it is no child then.
                let kept: Vec<i64> =
                    (0..size).filter(|&c| !groups[c as usize].is_empty()).collect();
                let on_device = |index: &[i64]| Tensor::from_slice(index).to_device(data.device());
                centres.push(clusters.centres.index_select(0, &on_device(&kept)));
                children.extend(
                    kept.iter().map(|&centre| {
                        members.index_select(0, &on_device(&groups[centre as usize]))
                    }),
                );
            }
            starts.push(children.len() as u32);
        }
        tree.centres.push(Tensor::cat(&centres, 0));
        tree.first_child.push(starts);
        nodes = children;
    }
    tree
}

/// Positions of the points of each cluster.
fn group(nearest: &Tensor, clusters: i64) -> Vec<Vec<i64>> {
    let mut groups = vec![Vec::new(); clusters as usize];
    // Numbers of clusters are exact in f32.
    for (cluster, at) in to_vec(&nearest.to_device(Device::Cpu)).into_iter().zip(0..) {
        groups[cluster as usize].push(at);
    }
    groups
}
