//! A client that keeps its cookies, and a connection to each node.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use super::cluster::Cluster;
use super::raw::Client;
use super::wire::Message;

/// Goes from node to node like a client behind a load balancer.
pub struct Browser<'a> {
    cluster: &'a Cluster,
    kept: BTreeMap<usize, (SocketAddr, Client)>,
    /// By name.
    pub cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, kept: BTreeMap::new(), cookies: BTreeMap::new() }
    }

    /// A request without a body.
    pub async fn get(&mut self, node: usize, path: &str) -> Message {
        self.ask(node, &format!("GET {path}"), &[], "").await
    }

    /// Signs the guestbook; returns the entry's number.
    pub async fn sign(&mut self, node: usize, text: &str) -> u64 {
        let answer = self.post(node, text).await;
        assert_eq!(answer.status(), 201, "{answer:?}");
        json(&answer)["id"].as_u64().unwrap()
    }

    /// Tries to sign the guestbook.
    pub async fn post(&mut self, node: usize, text: &str) -> Message {
        let body = serde_json::json!({ "text": text }).to_string();
        self.ask(node, "POST /api/entries", &["Content-Type: application/json"], &body).await
    }

    /// Whether a node shows an entry.
    pub async fn sees(&mut self, node: usize, entry: u64) -> bool {
        let answer = self.get(node, &format!("/api/entries/{entry}")).await;
        assert!(matches!(answer.status(), 200 | 404), "{answer:?}");
        answer.status() == 200
    }

    /// Any request.
    pub async fn ask(
        &mut self,
        node: usize,
        request: &str,
        fields: &[&str],
        body: &str,
    ) -> Message {
        let address = self.cluster.address(node);
        let mut client = match self.kept.remove(&node) {
            Some((kept, client)) if kept == address => client,
            _ => Client::connect(address).await,
        };
        let pairs: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookie = format!("Cookie: {}", pairs.join("; "));
        let length = format!("Content-Length: {}", body.len());
        let mut fields = fields.to_vec();
        if !pairs.is_empty() {
            fields.push(&cookie);
        }
        if !request.starts_with("GET ") {
            fields.push(&length);
        }
        client.begin(request, &fields).await;
        client.send(body).await;
        let answer = client.response().await;
        for line in answer.all("set-cookie") {
            let (name, rest) = line.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            match rest.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        if answer.field("connection") != Some("close") {
            self.kept.insert(node, (address, client));
        }
        answer
    }
}

/// The body of an answer.
pub fn json(answer: &Message) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|why| panic!("{why} in {answer:?}"))
}
