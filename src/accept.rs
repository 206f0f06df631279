//! Accepting connections, each served in a task of its own, within a bound. Once that is reached,
//! [`crowd`](crate::crowd) says who gives way to a newcomer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::crowd::{Arrival, Crowd, Place, Standing};
use crate::telemetry::log_throttle::{LogThrottle, may_say};

/// After a failed `accept`: most likely no file descriptor is free.
const PAUSE: Duration = Duration::from_millis(100);

/// Those who are connected to a port.
#[derive(Clone)]
pub(crate) struct Guests(Arc<Shared>);

struct Shared {
    /// For the log.
    port: &'static str,
    list: Mutex<GuestList>,
    log: LogThrottle<()>,
}

struct GuestList {
    crowd: Crowd,
    tasks: HashMap<Place, AbortHandle>,
}

/// One of them; dropping it frees its place.
pub(crate) struct Guest {
    guests: Guests,
    place: Place,
}

impl Guests {
    pub(crate) fn of_at_most(most: usize, port: &'static str) -> Self {
        let list = GuestList { crowd: Crowd::of_at_most(most), tasks: HashMap::new() };
        Self(Arc::new(Shared { port, list: Mutex::new(list), log: LogThrottle::new() }))
    }

    /// Takes somebody in, and ends whoever gives way; `None`: all that are there count for more.
    pub(crate) fn take(&self, from: IpAddr, standing: Standing) -> Option<Guest> {
        let mut list = self.0.list.lock();
        let (place, leaves) = match list.crowd.arrive(from, standing) {
            Arrival::Free(place) => (place, None),
            Arrival::InsteadOf(place, leaves) => (place, list.tasks.remove(&leaves)),
            Arrival::Full => return None,
        };
        drop(list);
        if let Some(task) = leaves {
            task.abort();
            self.say_full(from);
        }
        Some(Guest { guests: self.clone(), place })
    }

    fn say_full(&self, newcomer: IpAddr) {
        if let Some(held_back) = self.0.log.may_speak((), Instant::now()) {
            let port = self.0.port;
            tracing::warn!(
                %newcomer, held_back,
                "{port} has as many connections as it takes: whoever was idle longest gives way"
            );
        }
    }

    /// The task that serves the guest in that place ends when somebody else gets the place.
    pub(crate) fn is_served_by(&self, place: Place, task: AbortHandle) {
        let mut list = self.0.list.lock();
        match list.crowd.has(place) {
            true => drop(list.tasks.insert(place, task)),
            // It has gone, or has given way, since.
            false => task.abort(),
        }
    }
}

impl Guest {
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// From now on it counts for that.
    pub(crate) fn is(&self, standing: Standing) {
        self.guests.0.list.lock().crowd.set(self.place, standing);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut list = self.guests.0.list.lock();
        list.crowd.leave(self.place);
        list.tasks.remove(&self.place);
    }
}

/// Serves whoever connects to `port`. Of `limit` connections at once a stranger gives way to the next one;
/// if all count for more, that one waits. Never ends. The connections are in `connections`, so that the
/// caller can wait for them or end them.
pub(crate) async fn serve_each<F>(
    listener: &TcpListener,
    port: &'static str,
    limit: usize,
    connections: &mut JoinSet<()>,
    mut serve: impl FnMut(TcpStream, SocketAddr, Guest) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let guests = Guests::of_at_most(limit, port);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let guest = loop {
                    while connections.try_join_next().is_some() {}
                    match guests.take(from.ip(), Standing::Stranger) {
                        Some(guest) => break guest,
                        None => drop(connections.join_next().await),
                    }
                };
                let place = guest.place();
                guests.is_served_by(place, connections.spawn(serve(stream, from, guest)));
                // A turn for each: else it could have to give way before it was ever read from.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                if let Some(held_back) = may_say(port) {
                    tracing::warn!(%error, held_back, "{port} cannot accept a connection");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
