//! Whose turn it is: the core's own place in each schedule of the snapshot.

use std::net::SocketAddr;

use tables::{Cluster, ClusterId, EndpointId, Rule, Snapshot};

/// Cursors into the schedules of one snapshot. Each core has its own, so nothing is shared.
#[derive(Debug, Default)]
pub struct Balance {
    rules: Vec<u32>,
    clusters: Vec<u32>,
}

impl Balance {
    /// Fits the cursors to a new snapshot. Places are kept by position: after a change of routes a turn may be taken twice.
    pub fn renew(&mut self, snapshot: &Snapshot) {
        // Never shorter: requests that began under an older snapshot may still take turns there.
        self.rules.resize(snapshot.rules.len().max(self.rules.len()), 0);
        self.clusters.resize(snapshot.clusters.len().max(self.clusters.len()), 0);
    }

    /// The position of the target whose turn it is. `None` where no target takes requests.
    #[inline]
    pub fn target(&mut self, index: u32, rule: &Rule) -> Option<usize> {
        if rule.targets.len() == 1 {
            return rule.schedule.is_some().then_some(0);
        }
        Some(rule.schedule.as_ref()?.next(self.rules.get_mut(index as usize)?))
    }

    /// The endpoint whose turn it is, and another than `failed` where there is another. `None` where no endpoint takes requests.
    #[inline]
    pub fn endpoint(
        &mut self,
        id: ClusterId,
        cluster: &Cluster,
        failed: Option<EndpointId>,
    ) -> Option<(EndpointId, SocketAddr)> {
        let schedule = cluster.schedule.as_ref()?;
        let cursor = self.clusters.get_mut(id.0 as usize)?;
        let mut chosen = cluster.endpoints.get(schedule.next(cursor))?;
        // One round is enough to meet every other endpoint.
        let mut turns = schedule.period();
        while Some(chosen.id) == failed && turns > 0 {
            chosen = cluster.endpoints.get(schedule.next(cursor))?;
            turns -= 1;
        }
        Some((chosen.id, chosen.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tables::{Endpoint, HttpSettings, SeriesId, Target};

    fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        (0u32..)
            .zip(weights)
            .map(|(i, &weight)| Endpoint {
                id: EndpointId(i),
                address: SocketAddr::from(([10, 0, 0, i as u8], 80)),
                weight,
            })
            .collect()
    }

    #[test]
    fn turns_are_taken_by_weight_and_failed_endpoints_passed_over() {
        let cluster = Cluster::new("a".into(), endpoints(&[1, 2]));
        let alone = Cluster::new("b".into(), endpoints(&[1]));
        let target = Target { cluster: ClusterId(0), weight: 1, series: SeriesId(0) };
        let rule =
            Rule::new("r".into(), 0, vec![target, Target { cluster: ClusterId(1), weight: 0, ..target }], SeriesId(0));
        let snapshot = Snapshot::new(1, HttpSettings::default(), vec![], vec![rule], vec![cluster, alone], vec![]);
        let mut balance = Balance::default();
        balance.renew(&snapshot);
        let mut turns = [0; 2];
        for _ in 0..30 {
            let (id, _) = balance.endpoint(ClusterId(0), &snapshot.clusters[0], None).unwrap();
            turns[id.0 as usize] += 1;
            assert_eq!(balance.target(0, &snapshot.rules[0]), Some(0));
        }
        assert_eq!(turns, [10, 20]);
        for _ in 0..9 {
            let (id, _) = balance.endpoint(ClusterId(0), &snapshot.clusters[0], Some(EndpointId(1))).unwrap();
            assert_eq!(id, EndpointId(0));
        }
        let only = balance.endpoint(ClusterId(1), &snapshot.clusters[1], Some(EndpointId(0)));
        assert_eq!(only.map(|(id, _)| id), Some(EndpointId(0)));
    }
}
