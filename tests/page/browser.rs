//! A real Chromium without a window, driven by its DevTools protocol over a pair of pipes
//! (`--remote-debugging-pipe`: messages are JSON, and each ends with a NUL).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::need::need;

/// Far beyond what anything here takes, on a machine that is busy too.
const PATIENCE: Duration = Duration::from_secs(60);

/// The browser, with one page open. Dropping it ends it.
pub struct Browser {
    process: Child,
    orders: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    last: u64,
    /// What the page complained about: exceptions, and what its policy forbids.
    pub complaints: Vec<String>,
    _profile: TempDir,
}

/// Chromium, or what stands for it.
fn program() -> String {
    std::env::var("LITEPILOT_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned())
}

impl Browser {
    /// Whether there is one; otherwise the test is to return.
    pub fn is_here() -> bool {
        need(&program(), "chromium")
    }

    /// As wide as that, in dark mode or not.
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // Chromium reads orders at descriptor 3 and answers at 4. As root it has no sandbox.
        let mut process = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, &program()])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-extensions", "--disable-background-networking"])
            .args(["--remote-debugging-pipe", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let (sender, messages) = channel();
        let answers = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).unwrap();
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let orders = process.stdin.take().unwrap();
        let (session, complaints) = Default::default();
        let mut browser =
            Self { process, orders, messages, session, last: 0, complaints, _profile: profile };
        let page = browser.order("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let session = browser.order("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.order(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Goes to an address.
    pub fn open(&mut self, url: &str) {
        self.order("Page.navigate", json!({ "url": url }));
    }

    /// Looks from a window of that width, in dark or in light mode.
    pub fn look(&mut self, width: u32, dark: bool) {
        let size =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        self.order("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let scheme = json!({"name": "prefers-color-scheme", "value": scheme});
        self.order("Emulation.setEmulatedMedia", json!({"features": [scheme]}));
    }

    /// The value of an expression on the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let order = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut found = self.order("Runtime.evaluate", order);
        assert!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        found["result"]["value"].take()
    }

    /// Returns once an expression holds on the page.
    pub fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(expression) != true {
            if Instant::now() > deadline {
                let seen = self.value("document.body.innerText");
                panic!(
                    "in vain waited until {expression}; {:?}; the page: {seen}",
                    self.complaints
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses a key, as a person at a keyboard does.
    pub fn press(&mut self, key: &str) {
        let text = if key == "Enter" { "\r" } else { "" };
        let code = if key == "Enter" { 13 } else { 27 };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({
                "type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code,
            });
            self.order("Input.dispatchKeyEvent", event);
        }
    }

    /// Types a text into what has the focus.
    pub fn write(&mut self, text: &str) {
        self.order("Input.insertText", json!({ "text": text }));
    }

    /// Takes a picture of the whole page, if somebody wants to look at it: into the directory that
    /// `LITEPILOT_SCREENSHOTS` names.
    pub fn picture(&mut self, name: &str) {
        let Some(dir) = std::env::var_os("LITEPILOT_SCREENSHOTS") else { return };
        let picture = self.order("Page.captureScreenshot", json!({"captureBeyondViewport": true}));
        let file = Path::new(&dir).join(format!("{name}.png.base64"));
        std::fs::write(file, picture["data"].as_str().unwrap()).unwrap();
    }

    fn order(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut order = json!({"id": self.last, "method": method, "params": parameters});
        if !self.session.is_empty() {
            order["sessionId"] = self.session.clone().into();
        }
        let sent = self.orders.write_all(format!("{order}\0").as_bytes());
        assert!(
            sent.is_ok(),
            "no Chromium here: apt install chromium, or name one in LITEPILOT_CHROMIUM"
        );
        loop {
            let message = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|why| {
                panic!(
                    "{method}: Chromium does not answer ({why}); is it installed (apt install chromium), or \
                     named in LITEPILOT_CHROMIUM?"
                )
            });
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            let complaint = match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Log.entryAdded") => message["params"]["entry"]["source"] == "security",
                _ => false,
            };
            if complaint {
                self.complaints.push(message["params"].to_string());
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // With all of its processes, which are in its group.
        let _ = kill_process_group(Pid::from_child(&self.process), Signal::KILL);
        let _ = self.process.wait();
    }
}
