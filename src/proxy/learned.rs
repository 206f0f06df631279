//! Routes that were found to write although no rule says so. The primary finds them and tells the
//! replicas, which send such requests to it at once. A route is forgotten when it has not written for an
//! hour, or has done nothing many times in a row.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::rules::WriteRoute;
use crate::status::LearnedWrite;
use crate::telemetry::clock::rfc3339;

/// Routes kept; the one that wrote longest ago makes room.
const MOST: usize = 256;
/// Bytes of what is told to peers, whose lines are bounded.
const MOST_TOLD: usize = 10 << 10;
/// Since a route wrote last.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);
/// Requests in a row that wrote nothing.
const FORGOTTEN_AFTER_IDLE: u32 = 32;

/// What is known on this node.
#[derive(Default)]
pub struct LearnedRoutes {
    core: Mutex<Core>,
    /// The routes alone, replaced as a whole: what workers look up.
    known: watch::Sender<Arc<BTreeSet<WriteRoute>>>,
}

#[derive(Default)]
struct Core(HashMap<WriteRoute, Learned>);

struct Learned {
    count: u64,
    /// Requests since then that wrote nothing.
    idle: u32,
    last: Instant,
    /// The same, for people.
    last_wall: SystemTime,
}

impl LearnedRoutes {
    /// The routes, as they change.
    pub(crate) fn known(&self) -> watch::Receiver<Arc<BTreeSet<WriteRoute>>> {
        self.known.subscribe()
    }

    /// A request of that route was seen to write, and nobody else can have done it.
    pub(crate) fn wrote(&self, route: WriteRoute) {
        if route.is_read_by_default() {
            self.change(|core, now| core.wrote(route, now));
        }
    }

    /// A request of that route was seen not to write.
    pub(crate) fn idled(&self, route: &WriteRoute) {
        self.change(|core, _| core.idled(route));
    }

    /// Forgets what has not written for long.
    pub(crate) fn expire(&self) {
        self.change(Core::expire);
    }

    /// Takes over what the primary knows, in place of what was known here.
    pub(crate) fn adopt(&self, routes: &[WriteRoute]) {
        self.change(|core, now| core.adopt(routes, now));
    }

    /// What a primary tells the others: those that wrote last come first, as far as there is room.
    pub(crate) fn told(&self) -> Vec<WriteRoute> {
        let core = self.core.lock();
        let mut newest: Vec<_> = core.0.iter().collect();
        newest.sort_by_key(|(_, learned)| std::cmp::Reverse(learned.last));
        let mut room = MOST_TOLD;
        let fits = |(route, _): &(&WriteRoute, &Learned)| {
            let size = serde_json::to_vec(route).map_or(usize::MAX, |json| json.len() + 1);
            room.checked_sub(size).inspect(|left| room = *left).is_some()
        };
        newest.into_iter().take_while(fits).map(|(route, _)| route.clone()).collect()
    }

    /// For `/status`: the most frequent first.
    pub fn list(&self) -> Vec<LearnedWrite> {
        let core = self.core.lock();
        let learned = |(route, learned): (&WriteRoute, &Learned)| LearnedWrite {
            request: route.request(),
            count: learned.count,
            last: rfc3339(learned.last_wall),
            rule: route.rule(),
        };
        let mut list: Vec<_> = core.0.iter().map(learned).collect();
        list.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.rule.cmp(&b.rule)));
        list
    }

    /// Changes what is known, and publishes it if there are other routes then.
    fn change(&self, change: impl FnOnce(&mut Core, Instant) -> bool) {
        let mut core = self.core.lock();
        if change(&mut core, Instant::now()) {
            self.known.send_replace(Arc::new(core.0.keys().cloned().collect()));
        }
    }
}

/// Each says whether there are other routes afterwards.
impl Core {
    fn wrote(&mut self, route: WriteRoute, now: Instant) -> bool {
        let news = !self.0.contains_key(&route);
        if news && self.0.len() >= MOST {
            self.drop_oldest();
        }
        let new = Learned { count: 0, idle: 0, last: now, last_wall: SystemTime::now() };
        let learned = self.0.entry(route).or_insert(new);
        learned.count += 1;
        (learned.idle, learned.last, learned.last_wall) = (0, now, SystemTime::now());
        news
    }

    fn idled(&mut self, route: &WriteRoute) -> bool {
        let Some(learned) = self.0.get_mut(route) else { return false };
        learned.idle += 1;
        let forgotten = learned.idle >= FORGOTTEN_AFTER_IDLE;
        if forgotten {
            self.0.remove(route);
        }
        forgotten
    }

    fn expire(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|_, learned| now.saturating_duration_since(learned.last) < FORGOTTEN_AFTER);
        self.0.len() != before
    }

    fn adopt(&mut self, routes: &[WriteRoute], now: Instant) -> bool {
        let routes: BTreeSet<_> = routes
            .iter()
            .filter(|route| route.is_sound() && route.is_read_by_default())
            .take(MOST)
            .collect();
        let before = self.0.len();
        self.0.retain(|route, _| routes.contains(route));
        let lost = self.0.len() != before;
        let kept = self.0.len();
        for route in &routes {
            let new = Learned { count: 0, idle: 0, last: now, last_wall: SystemTime::now() };
            self.0.entry((*route).clone()).or_insert(new);
        }
        lost || self.0.len() != kept
    }

    fn drop_oldest(&mut self) {
        let oldest = self.0.iter().min_by_key(|(_, learned)| learned.last);
        if let Some(route) = oldest.map(|(route, _)| route.clone()) {
            self.0.remove(&route);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn route(path: &str) -> WriteRoute {
        WriteRoute::of(&Method::GET, b"shop", path).unwrap()
    }

    fn knows(routes: &LearnedRoutes, path: &str) -> bool {
        routes.known().borrow().contains(&route(path))
    }

    #[test]
    fn what_wrote_is_known_until_it_has_done_nothing_for_long() {
        let routes = LearnedRoutes::default();
        routes.wrote(route("/a"));
        for _ in 1..FORGOTTEN_AFTER_IDLE {
            routes.idled(&route("/a"));
        }
        routes.wrote(route("/a"));
        routes.idled(&route("/a"));
        assert!(knows(&routes, "/a"), "it has written in between");
        for _ in 1..FORGOTTEN_AFTER_IDLE {
            routes.idled(&route("/a"));
        }
        assert!(!knows(&routes, "/a"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_not_written_for_an_hour_is_forgotten() {
        let routes = LearnedRoutes::default();
        routes.wrote(route("/a"));
        routes.wrote(route("/b"));
        tokio::time::advance(FORGOTTEN_AFTER / 2).await;
        routes.wrote(route("/b"));
        tokio::time::advance(FORGOTTEN_AFTER / 2).await;
        routes.expire();
        assert!(!knows(&routes, "/a") && knows(&routes, "/b"));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_cannot_make_it_grow() {
        let routes = LearnedRoutes::default();
        let name = |i: usize| format!("/{}/x{i}y", "long".repeat(30));
        for i in 0..10 * MOST {
            routes.wrote(route(&name(i)));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(routes.list().len(), MOST);
        assert!(knows(&routes, &name(10 * MOST - 1)), "the latest are kept");
        let told = routes.told();
        let size = serde_json::to_vec(&told).unwrap().len();
        assert!((MOST_TOLD / 2..=MOST_TOLD + 2).contains(&size), "{size}");
        assert_eq!(told[0], route(&name(10 * MOST - 1)));
    }

    #[test]
    fn a_replica_knows_what_its_primary_tells() {
        let (primary, replica) = (LearnedRoutes::default(), LearnedRoutes::default());
        primary.wrote(route("/a"));
        primary.wrote(route("/b"));
        replica.wrote(route("/own"));
        replica.adopt(&primary.told());
        assert!(knows(&replica, "/a") && knows(&replica, "/b") && !knows(&replica, "/own"));
        replica.adopt(&[]);
        assert!(replica.list().is_empty());
    }
}
