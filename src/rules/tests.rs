//! What a user's rules do to a user's requests.

use http::header::{CONTENT_TYPE, HOST, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::*;

mod loading;
mod properties;

/// The rules of a file, and after them the default set.
fn rules(text: &str) -> RuleSet {
    let mut rules = file::parse("t.yml", text.as_bytes()).unwrap();
    let (_, default) = BUNDLED[0];
    rules.extend(file::parse("default.yml", default.as_bytes()).unwrap());
    RuleSet::new(rules)
}

/// Bundled sets by name, as a configuration lists them.
fn bundled(names: &[&str]) -> RuleSet {
    RuleSet::load(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
    let fields = fields.iter();
    fields.map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
}

impl RuleSet {
    /// The class of a request without header fields: `GET /path`.
    fn class(&self, request: &str) -> Class {
        self.class_with(request, &[])
    }

    fn class_with(&self, request: &str, fields: &[(HeaderName, &str)]) -> Class {
        self.verdict(request, fields).class
    }

    fn verdict(&self, request: &str, fields: &[(HeaderName, &str)]) -> Verdict {
        let (method, uri) = request.split_once(' ').unwrap();
        let method: Method = method.parse().unwrap();
        let uri: Uri = uri.parse().unwrap();
        self.classify(&method, &uri, &headers(fields)).unwrap()
    }
}

#[test]
fn safe_methods_are_reads_and_all_else_are_writes() {
    let rules = bundled(&[]);
    for method in ["GET", "HEAD", "OPTIONS", "QUERY"] {
        assert_eq!(rules.class(&format!("{method} /")), Class::Read, "{method}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "get", "Get", "TRACE", "X"] {
        assert_eq!(rules.class(&format!("{method} /")), Class::Write, "{method}");
    }
    assert_eq!(rules.class("OPTIONS *"), Class::Read);
    assert_eq!(rules.class("CONNECT example.com:443"), Class::Write);
}

#[test]
fn a_method_override_means_write_whatever_it_says() {
    let rules = bundled(&[]);
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        let name = HeaderName::from_static(name);
        for value in ["DELETE", "GET", ""] {
            assert_eq!(rules.class_with("GET /", &[(name.clone(), value)]), Class::Write, "{name}");
        }
    }
}

#[test]
fn a_rule_of_the_users_overrides_the_default() {
    let rules = rules("rules: [{match: {path: /search}, as: read}]");
    let field = [(HeaderName::from_static("x-http-method-override"), "GET")];
    assert_eq!(rules.class_with("POST /search", &field), Class::Read);
    assert_eq!(rules.class("POST /search/"), Class::Write);
}

#[test]
fn a_websocket_is_a_write_unless_a_rule_says_otherwise() {
    let rules = rules("rules: [{match: {upgrade: websocket, path: /ws/news/**}, as: read}]");
    let upgrade = |protocol| [(UPGRADE, protocol)];
    assert_eq!(rules.class_with("GET /ws/x", &upgrade("websocket")), Class::Write);
    assert_eq!(rules.class_with("GET /ws/news/x", &upgrade("websocket")), Class::Read);
    assert_eq!(rules.class_with("GET /ws/x", &upgrade("h2c, WebSocket/13")), Class::Read);
    assert_eq!(rules.class_with("GET /ws/x", &upgrade("h2c, WebSocket")), Class::Write);
    assert_eq!(rules.class_with("GET /ws/x", &upgrade("h2c")), Class::Read);
    assert_eq!(rules.class("GET /ws/x"), Class::Read);
    // Only a GET opens a WebSocket: a POST with that header is a POST.
    assert_eq!(rules.class_with("POST /", &upgrade("websocket")), Class::Write);
}

#[test]
fn get_means_head_too_and_a_list_means_each() {
    let rules = rules(
        "rules:\n\
         - {match: {method: GET, path: /a}, as: write}\n\
         - {match: {method: [POST, PUT], path: /b}, as: read}\n\
         - {match: {method: PURGE}, as: passthrough}",
    );
    assert_eq!(rules.class("HEAD /a"), Class::Write);
    assert_eq!(rules.class("OPTIONS /a"), Class::Read);
    assert_eq!(rules.class("PUT /b"), Class::Read);
    assert_eq!(rules.class("PATCH /b"), Class::Write);
    assert_eq!(rules.class("PURGE /b"), Class::Passthrough);
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = rules(
        "rules:\n\
         - match: {path: /a/b}\n\
         \u{20} as: read\n\
         - match: {path: /a/**}\n\
         \u{20} as: write",
    );
    let verdict = rules.verdict("GET /a/b", &[]);
    assert_eq!((verdict.class, rules.place(verdict.rule)), (Class::Read, "t.yml:2"));
    let verdict = rules.verdict("GET /a/c", &[]);
    assert_eq!((verdict.class, rules.place(verdict.rule)), (Class::Write, "t.yml:4"));
    let verdict = rules.verdict("DELETE /", &[]);
    assert!(rules.place(verdict.rule).starts_with("default.yml:"));
    assert_eq!(rules.place(usize::MAX), "");
}

#[test]
fn all_conditions_of_a_rule_must_hold() {
    let rules = rules(
        "rules: [{match: {path: /a, host: h, query: {q: '1'}, header: {X: present}}, as: write}]",
    );
    let x = HeaderName::from_static("x");
    let all = [(HOST, "h"), (x.clone(), "")];
    assert_eq!(rules.class_with("GET /a?q=1", &all), Class::Write);
    assert_eq!(rules.class_with("GET /b?q=1", &all), Class::Read);
    assert_eq!(rules.class_with("GET /a?q=2", &all), Class::Read);
    assert_eq!(rules.class_with("GET /a?q=1", &[(HOST, "h")]), Class::Read);
    assert_eq!(rules.class_with("GET /a?q=1", &[(HOST, "g"), (x, "")]), Class::Read);
}

#[test]
fn a_path_expression_is_found_anywhere_in_the_path() {
    let rules = rules("rules: [{match: {path_regex: '/v[0-9]+/x$'}, as: write}]");
    assert_eq!(rules.class("GET /api/v12/x"), Class::Write);
    assert_eq!(rules.class("GET /api/v12/x/"), Class::Read);
    assert_eq!(rules.class("GET /api?/v1/x"), Class::Read);
}

#[test]
fn hosts_match_without_port_and_case() {
    let rules = rules(
        "rules:\n\
         - {match: {host: Admin.example.com}, as: write}\n\
         - {match: {host: '*.cdn.example.com'}, as: passthrough}\n\
         - {match: {host: '[::1]'}, as: write}",
    );
    for (host, class) in [
        ("admin.example.com", Class::Write),
        ("ADMIN.Example.com:8080", Class::Write),
        ("admin.example.com.", Class::Write),
        ("admin.example.com.:80", Class::Write),
        ("a.b.cdn.example.com", Class::Passthrough),
        ("cdn.example.com", Class::Read),
        ("xadmin.example.com", Class::Read),
        ("[::1]:80", Class::Write),
        ("[::1]", Class::Write),
        ("[::2]", Class::Read),
        ("", Class::Read),
    ] {
        assert_eq!(rules.class_with("GET /", &[(HOST, host)]), class, "{host}");
    }
    let verdict = rules.class_with("GET http://admin.example.com:1/", &[(HOST, "other")]);
    assert_eq!(verdict, Class::Write);
    assert_eq!(rules.class("GET /"), Class::Read);
}

#[test]
fn query_parameters_match_by_name_and_value_once_decoded() {
    let rules = rules(
        "rules:\n\
         - {match: {query: {action: 'delete*'}}, as: write}\n\
         - {match: {query: {draft: present}}, as: write}\n\
         - {match: {path: /p, query: {live: absent}}, as: passthrough}",
    );
    for (target, class) in [
        ("/?action=delete", Class::Write),
        ("/?x=1&%61ction=%64elete+all", Class::Write),
        ("/?action=list&action=delete", Class::Write),
        ("/?action=list", Class::Read),
        ("/?xaction=delete", Class::Read),
        ("/?draft", Class::Write),
        ("/?draft=", Class::Write),
        ("/?=draft&&", Class::Read),
        ("/p", Class::Passthrough),
        ("/p?live=1", Class::Read),
        ("/p?l%69ve", Class::Read),
    ] {
        assert_eq!(rules.class(&format!("GET {target}")), class, "{target}");
    }
}

#[test]
fn header_fields_match_by_value_presence_and_absence() {
    let rules = rules(
        "rules:\n\
         - {match: {header: {X-Mode: 'write*'}}, as: write}\n\
         - {match: {path: /p, header: {Authorization: absent}}, as: passthrough}",
    );
    let mode = HeaderName::from_static("x-mode");
    assert_eq!(rules.class_with("GET /", &[(mode.clone(), "write-back")]), Class::Write);
    assert_eq!(rules.class_with("GET /", &[(mode.clone(), "no write")]), Class::Read);
    let twice = [(mode.clone(), "a"), (mode, "write")];
    assert_eq!(rules.class_with("GET /", &twice), Class::Write);
    assert_eq!(rules.class("GET /p"), Class::Passthrough);
    let authorized = [(http::header::AUTHORIZATION, "x")];
    assert_eq!(rules.class_with("GET /p", &authorized), Class::Read);
}

#[test]
fn media_types_match_without_parameters_and_case() {
    let rules = rules("rules: [{match: {content_type: 'application/*+json'}, as: read}]");
    let class = |value| rules.class_with("POST /", &[(CONTENT_TYPE, value)]);
    assert_eq!(class("Application/LD+JSON ; charset=utf-8"), Class::Read);
    assert_eq!(class("application/json"), Class::Write);
    assert_eq!(class("text/plain; a=application/ld+json"), Class::Write);
    assert_eq!(rules.class("POST /"), Class::Write);
}

#[test]
fn a_rule_may_set_its_own_levels_and_times() {
    let rules = rules(
        "rules:\n\
         - match: {path: /reports/**}\n\
         \u{20} as: read\n\
         \u{20} consistency: strong\n\
         \u{20} read_wait: 1s\n\
         - match: {path: /pay}\n\
         \u{20} as: write\n\
         \u{20} write_hold: 250ms\n\
         \u{20} ack: majority",
    );
    let read = rules.verdict("GET /reports/1", &[]);
    assert_eq!(read.consistency, Some(Consistency::Strong));
    assert_eq!(read.read_wait, Some(Duration::from_secs(1)));
    assert_eq!((read.write_hold, read.ack), (None, None));
    let write = rules.verdict("POST /pay", &[]);
    assert_eq!(write.write_hold, Some(Duration::from_millis(250)));
    assert_eq!(write.ack, Some(Ack::Majority));
    assert_eq!((write.consistency, write.read_wait), (None, None));
}

#[test]
fn an_encoded_path_cannot_slip_past_its_rule() {
    let rules = rules(
        "rules:\n\
         - {match: {path: /static/**}, as: passthrough}\n\
         - {match: {path: /admin/**}, as: write}\n\
         - {match: {path: /caf\u{e9}}, as: write}\n\
         - {match: {path: /cart;v=2}, as: write}\n\
         - {match: {path_regex: '^/shop/.*/buy$'}, as: write}",
    );
    for path in [
        "/%61dmin/x",
        "/%61%64%6D%69%6e/x",
        "/admin%2Fx",
        "//admin/x",
        "/./admin/x",
        "/%2e/admin/x",
        "/static/../admin/x",
        "/static/%2e%2E/admin/x",
        "/static%2F..%2Fadmin%2Fx",
        "/static/..;v=1/admin/x",
        "/static/..\\admin/x",
        "/static/..%5cadmin/x",
        "/static/x%2Fy/../../admin/x",
        "/static%2Fx/../admin/x",
        "/admin;v=1/x",
        "/admin%3Bv/x",
        // What an application sees that does not remove dots.
        "/admin/../static/x",
        "/admin/%2e%2e/static/x",
        "/%61dmin/%2e%2e/static/x",
        // What one sees that removes dots, but knows no parameters.
        "/static%2F..%2Fcart;v=2",
        "/caf%C3%A9",
        "/caf%c3%a9",
        "/shop/%0a/buy",
        "/sh%6fp/%0a%ff/buy",
    ] {
        assert_eq!(rules.class(&format!("GET {path}")), Class::Write, "{path}");
    }
    for (path, class) in [
        ("/static/a%20b.css", Class::Passthrough),
        ("/static/a;b.css", Class::Passthrough),
        ("/static/%zz", Class::Passthrough),
        ("/static/%ff%FE", Class::Passthrough),
        ("/static//a.css", Class::Passthrough),
        ("/%73tatic/a.css", Class::Read),
        ("//static/a.css", Class::Read),
        // Decoded once this is `%61dmin`, and nobody decodes twice.
        ("/%2561dmin/x", Class::Read),
        ("/ADMIN/x", Class::Read),
        ("/", Class::Read),
    ] {
        assert_eq!(rules.class(&format!("GET {path}")), class, "{path}");
    }
}

#[test]
fn an_encoded_path_keeps_the_level_of_its_rule() {
    let rules = rules("rules: [{match: {path: /reports}, as: read, consistency: strong}]");
    let verdict = rules.verdict("GET /r%65ports", &[]);
    assert_eq!(verdict.consistency, Some(Consistency::Strong));
    assert_eq!(rules.place(verdict.rule), "t.yml:1");
}

#[test]
fn nul_is_a_bad_path() {
    let uri = Uri::from_static("/static/a%00.css");
    let verdict = bundled(&["static"]).classify(&Method::GET, &uri, &HeaderMap::new());
    assert_eq!(verdict, Err(BadPath));
}

#[test]
fn django_set_knows_gets_that_write() {
    let rules = bundled(&["django"]);
    for path in [
        "/admin/logout/",
        "/accounts/logout/",
        "/logout",
        "/accounts/reset/MQ/set-password/",
        "/reset/MQ/abc/",
        "/accounts/password/reset/key/1-abc/",
        "/accounts/confirm-email/key/",
        "/accounts/google/login/",
        "/accounts/google/login/callback/?code=1",
        "/accounts/oidc/mine/login/callback/",
        "/accounts/oidc/mine/login/",
        "/accounts/activate/abc/",
        "/complete/github/?code=1",
        "/login/github/",
        "/social-auth/complete/github/",
        "/oidc/callback/",
        "/saml2/login/",
        "/o/authorize/?client_id=1",
        "/any/page?sesame=token",
    ] {
        assert_eq!(rules.class(&format!("GET {path}")), Class::Write, "{path}");
        assert_eq!(rules.class(&format!("HEAD {path}")), Class::Write, "{path}");
    }
    for path in ["/", "/admin/", "/admin/jsi18n/", "/accounts/login/", "/login/", "/accounts/"] {
        assert_eq!(rules.class(&format!("GET {path}")), Class::Read, "{path}");
    }
    for path in ["/static/a.css", "/media/a/b.png"] {
        assert_eq!(rules.class(&format!("GET {path}")), Class::Passthrough, "{path}");
        assert_eq!(rules.class(&format!("POST {path}")), Class::Write, "{path}");
    }
}

#[test]
fn static_set_lets_files_pass() {
    let rules = bundled(&["static"]);
    for path in [
        "/static/x",
        "/assets/index-4f2a.js",
        "/assets/fonts/a.woff2",
        "/_next/static/chunks/1.js",
        "/_nuxt/entry.css",
        "/packs/js/app.js",
        "/css/site.css",
        "/img/a/b.webp",
        "/favicon.ico",
        "/favicon-32x32.png",
        "/apple-touch-icon.png",
        "/robots.txt",
        "/site.webmanifest",
    ] {
        assert_eq!(rules.class(&format!("GET {path}")), Class::Passthrough, "{path}");
        assert_eq!(rules.class(&format!("POST {path}")), Class::Write, "{path}");
    }
    for path in ["/static", "/assets/", "/assets/17", "/_next/data/x.json", "/a.css", "/images/"] {
        assert_eq!(rules.class(&format!("GET {path}")), Class::Read, "{path}");
    }
}

#[test]
fn a_plain_path_is_classified_without_allocating() {
    let rules = bundled(&["django", "static"]);
    let uris = ["/", "/accounts/x/login", "/blog/2026/11/a-post/?page=2", "/assets/a.js"];
    let uris: Vec<Uri> = uris.iter().map(|uri| uri.parse().unwrap()).collect();
    let headers = headers(&[(HOST, "example.com"), (CONTENT_TYPE, "text/html"), (UPGRADE, "h2c")]);
    let classify = || {
        for uri in &uris {
            for method in [&Method::GET, &Method::POST, &Method::QUERY] {
                rules.classify(method, uri, &headers).unwrap();
            }
        }
    };
    // Expressions make their scratch space once per thread.
    classify();
    assert_eq!(allocation_counter::measure(classify).count_total, 0);
}
