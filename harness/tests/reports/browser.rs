//! Headless Chromium, driven over the DevTools protocol through a pipe: no port, no driver, nothing to wait for by time.
//! Its messages are JSON that ends with a zero byte.

use std::{
    cell::RefCell,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// How long an answer may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Browser {
    process: Child,
    input: RefCell<ChildStdin>,
    messages: Receiver<Value>,
    session: String,
    next: RefCell<u64>,
    /// What the page complained about, and what it asked for over the network.
    complaints: RefCell<Vec<String>>,
    _profile: tempfile::TempDir,
}

#[allow(dead_code, reason = "the tests use most of it, the benchmark the rest")]
impl Browser {
    /// Starts Chromium.
    ///
    /// # Errors
    /// With the reason why there is none.
    pub fn start() -> Result<Self, String> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let found = names.iter().find(|name| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
        });
        let program = found.ok_or("there is no Chromium (on Debian: chromium)")?;
        let profile = tempfile::tempdir().map_err(|error| error.to_string())?;
        // Commands are read from file descriptor 3 and answers written to 4, which a shell can arrange.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", program]);
        command.args(["--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
        command.args(["--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking"]);
        command.args(["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--mute-audio"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = spawned.map_err(|error| format!("{program} cannot be started: {error}"))?;
        let input = process.stdin.take().ok_or("no pipe")?;
        let mut output = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            process,
            input: RefCell::new(input),
            messages,
            session: String::new(),
            next: RefCell::new(0),
            complaints: RefCell::default(),
            _profile: profile,
        };
        let target = browser.command("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.command("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap_or_default().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.command(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1400, 900);
        Ok(browser)
    }

    fn command(&self, method: &str, parameters: Value) -> Value {
        let id = self.next.replace_with(|next| *next + 1) + 1;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.borrow_mut().write_all(&bytes).expect("Chromium has ended");
        loop {
            let answer = self.messages.recv_timeout(PATIENCE);
            let answer = answer.unwrap_or_else(|error| panic!("Chromium does not answer {method}: {error}"));
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.event(&answer);
        }
    }

    fn event(&self, event: &Value) {
        let parameters = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => parameters["exceptionDetails"].to_string(),
            Some("Runtime.consoleAPICalled") => format!("console.{} {}", parameters["type"], parameters["args"]),
            Some("Log.entryAdded") => format!("log {}", parameters["entry"]),
            Some("Network.requestWillBeSent") => {
                let url = parameters["request"]["url"].as_str().unwrap_or_default();
                if url.starts_with("file://") && parameters["type"] == "Document" {
                    return;
                }
                format!("asked for {url}")
            }
            _ => return,
        };
        self.complaints.borrow_mut().push(complaint);
    }

    /// What the page complained about or asked for since the last time.
    pub fn complaints(&self) -> Vec<String> {
        // An answer comes behind the events before it.
        self.eval("0");
        self.complaints.take()
    }

    /// Opens a file and waits until the report says that it is ready. Milliseconds since the navigation began.
    pub fn open(&self, path: &Path) -> f64 {
        self.command("Page.navigate", json!({ "url": format!("file://{}", path.display()) }));
        let ready = "new Promise(done => { const look = () => { const [mark] = performance.getEntriesByName('ready'); \
                     mark ? done(mark.startTime) : requestAnimationFrame(look); }; look(); })";
        self.eval(ready).as_f64().unwrap()
    }

    /// The value of an expression; a promise is waited for.
    pub fn eval(&self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.command("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Text that is seen in the first element that a selector finds.
    pub fn text(&self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({})?.innerText", json!(selector)));
        text.as_str().unwrap_or_else(|| panic!("there is no {selector}")).to_owned()
    }

    /// How many elements a selector finds.
    pub fn count(&self, selector: &str) -> u64 {
        self.eval(&format!("document.querySelectorAll({}).length", json!(selector))).as_u64().unwrap()
    }

    /// Clicks into the middle of the first element that a selector finds, as a mouse does.
    pub fn click(&self, selector: &str) {
        let place = self.eval(&format!(
            "(() => {{ const node = document.querySelector({}); node.scrollIntoView({{ block: 'nearest' }}); \
             const box = node.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()",
            json!(selector)
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let at = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.command("Input.dispatchMouseEvent", at);
        }
    }

    /// Presses a key, by its name in the DOM.
    pub fn press(&self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        let text = if key.len() == 1 { key } else { "" };
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        let key = json!({ "key": key, "text": text, "windowsVirtualKeyCode": code });
        for kind in [down, "keyUp"] {
            let mut event = key.clone();
            event["type"] = kind.into();
            if kind == "keyUp" {
                event["text"] = "".into();
            }
            self.command("Input.dispatchKeyEvent", event);
        }
    }

    /// Types into what has the focus.
    pub fn type_text(&self, text: &str) {
        self.command("Input.insertText", json!({ "text": text }));
    }

    /// Size of the window.
    pub fn size(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.command("Emulation.setDeviceMetricsOverride", size);
    }

    /// Dark or light, as the system would ask for.
    pub fn scheme(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", features);
    }

    /// What is seen, as PNG.
    pub fn picture(&self) -> Vec<u8> {
        let shot = self.command("Page.captureScreenshot", json!({ "format": "png" }));
        BASE64_STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
