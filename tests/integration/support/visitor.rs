//! A client as a browser is one: it keeps its connection and its cookies.

use std::collections::BTreeMap;

use serde_json::Value;

use super::node::TestNode;
use super::raw::Client;
use super::wire::Message;

/// Visits one node.
pub struct Visitor<'a> {
    node: &'a TestNode,
    kept: Option<Client>,
    /// By name.
    pub cookies: BTreeMap<String, String>,
}

impl<'a> Visitor<'a> {
    pub fn of(node: &'a TestNode) -> Self {
        Self { node, kept: None, cookies: BTreeMap::new() }
    }

    /// A request without a body.
    pub async fn get(&mut self, path: &str) -> Message {
        self.ask(&format!("GET {path}"), &[], "").await
    }

    /// Sends a form.
    pub async fn submit(&mut self, path: &str, form: &str) -> Message {
        let kind = "Content-Type: application/x-www-form-urlencoded";
        self.ask(&format!("POST {path}"), &[kind], form).await
    }

    /// Any request.
    pub async fn ask(&mut self, request: &str, fields: &[&str], body: &str) -> Message {
        let mut client = match self.kept.take() {
            Some(client) => client,
            None => self.node.client().await,
        };
        let pairs: Vec<_> = self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
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
            self.kept = Some(client);
        }
        answer
    }

    /// The token that this client has from its last write; 0 without one.
    pub fn txid(&self) -> u64 {
        let token = self.cookies.get("__txid").map(|token| u64::from_str_radix(token, 16).unwrap());
        token.unwrap_or(0)
    }
}

/// The body of an answer.
pub fn json(answer: &Message) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|why| panic!("{why} in {answer:?}"))
}
