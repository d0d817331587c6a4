//! Each syntax rule with code that it has to find and code that it has to leave.

use super::scanner;
use crate::language::Language::{self, *};
use crate::rules::{SYNTAX, UseCase};

/// Rule, code, how often it is found.
pub(super) type Row = (&'static str, &'static str, usize);

const C_ROWS: &[Row] = &[
    ("blowfish-encryption-usage", "ctx = EVP_bf_cbc();", 1),
    ("blowfish-encryption-usage", "ctx = EVP_aes_256_gcm();", 0),
    ("bugprone-snprintf", "int n = snprintf(buf, 8, fmt, x);\nbuf[n] = 0;", 1),
    ("bugprone-snprintf", "n = snprintf(buf, 8, fmt);\nif (ok) { puts(buf); send(buf + n, 3); }", 1),
    ("bugprone-snprintf", "n = snprintf(buf, 8, fmt);\n*(buf + n) = 0;", 1),
    ("bugprone-snprintf", "n = snprintf(buf, 8, fmt);\nother[n] = 0;", 0),
    ("crypto-weak-prng", "int x = rand() % 6;", 1),
    ("crypto-weak-prng", "int x = srand(time(0)); grand(1);", 0),
    ("des-algorithm-usage", "EVP_des_ede3_cbc ();", 1),
    ("des-algorithm-usage", "describe();", 0),
    ("ecb-mode-encryption-usage", "c = EVP_aes_128_ecb();", 1),
    ("ecb-mode-encryption-usage", "c = EVP_aes_128_gcm();", 0),
    ("rsa-key-size-insufficient", "RSA_generate_key_ex(rsa, 1024, e, NULL);", 1),
    ("rsa-key-size-insufficient", "int bits = 512;\nprepare();\nEVP_RSA_gen(bits);", 1),
    ("rsa-key-size-insufficient", "EVP_RSA_gen(4096);", 0),
    ("unauthenticated-encryption-usage", "f(EVP_aes_256_ctr());", 1),
    ("unauthenticated-encryption-usage", "f(EVP_aes_256_ccm());", 0),
    ("fixed-nonce-usage", "char *iv = \"0000\";", 1),
    ("fixed-nonce-usage", "nonce = 12;", 1),
    ("fixed-nonce-usage", "char *iv = fresh(); int pivot = 3;", 0),
    ("fixed-seed-usage", "unsigned long seed = 42;", 1),
    ("fixed-seed-usage", "seed = time(NULL);", 0),
    ("hardcoded-key-usage", "static const char user_password[] = \"hunter2\";", 1),
    ("hardcoded-key-usage", "int passes = 2;", 0),
    ("potential-integer-overflow-to-buffer-overflow", "p = malloc(count * sizeof(int));", 1),
    ("potential-integer-overflow-to-buffer-overflow", "p = malloc(MAX * sizeof(int));", 0),
    ("potential-integer-overflow-to-buffer-overflow", "if (n > LIMIT) { return 0; }\np = malloc(n * 4);", 0),
    ("invalid-free", "void f(void) { int x; g(); free(&x); }", 1),
    ("invalid-free", "void f() { char b[9]; if (a) { free(b); } }", 1),
    ("invalid-free", "void f() { char *b = malloc(9); free(b); }", 0),
    ("mcf-get-cstring-result-ignored", "MCFStringGetCString(s, buf, 9, enc);", 1),
    ("mcf-get-cstring-result-ignored", "if (!MCFStringGetCString(s, buf, 9, enc)) { return; }", 0),
    ("mcf-get-cstring-result-ignored", "bool ok = MCFStringGetCString(s, buf, 9, enc);", 0),
    ("md2-or-md4-hash-usage", "MD4_Init(&c);", 1),
    ("md2-or-md4-hash-usage", "SHA256_Init(&c);", 0),
    ("md5-usage", "EVP_DigestInit(ctx, EVP_md5());", 1),
    ("md5-usage", "EVP_DigestInit(ctx, EVP_sha256());", 0),
    ("potential-command-injection", "char *cmd = argv[1];\nsystem(cmd);", 1),
    ("potential-command-injection", "system(\"ls\" \" -l\");", 0),
    ("potential-command-injection", "// system(cmd);\nputs(\"system(cmd)\");", 0),
    ("potential-command-injection", "const char *cmd = \"ls\";\nsystem(cmd);", 0),
    ("sha1-usage", "EVP_md5_sha1();", 1),
    ("sha1-usage", "SHA256(d, n, md);", 0),
    ("vulnerable-sprintf", "sprintf(out, \"%d %s\", 1, name);", 1),
    ("vulnerable-sprintf", "sprintf(out, \"%d\", 1);", 0),
    ("vulnerable-strcpy", "for (;;) strcpy(a, b);", 1),
    ("vulnerable-strcpy", "strncpy(a, b, 3); /* strcpy(a, b) */", 0),
    ("write-to-stack-buffer", "void f(char *s, int n) { char b[8]; if (n) { memcpy(b, s, n); } }", 1),
    ("write-to-stack-buffer", "char b[8];\nif (n < 8) { g(); }\nmemmove(b, s, n);", 0),
    ("write-to-stack-buffer", "char b[8]; memcpy(b, \"abc\", 3);", 0),
];

const CSHARP_ROWS: &[Row] = &[
    ("command-injection", "using System.Diagnostics;\nclass A { void F(string x) { Process.Start(x); } }", 1),
    (
        "command-injection",
        "using System.Diagnostics;\nclass A { void F(string x) { var p = new Process(); p.StartInfo.Arguments = \"-c \" + x; } }",
        1,
    ),
    (
        "command-injection",
        "using System.Diagnostics;\nclass A { void F(string x) {\n var info = new ProcessStartInfo(\"sh\");\n info.Arguments = x;\n Process.Start(info);\n} }",
        2,
    ),
    ("command-injection", "using System.Diagnostics;\nclass A { void F() { Process.Start(\"notepad.exe\"); } }", 0),
    ("cookie-without-http-only-flag", "HttpCookie c = new HttpCookie(\"a\");\nc.HttpOnly = false;", 1),
    ("cookie-without-http-only-flag", "var c = new HttpCookie(\"a\");\nc.HttpOnly = true;", 0),
    ("cookie-without-ssl-flag", "var c = new HttpCookie(\"a\");\nc.Name = \"x\";\nc.Secure = false;", 1),
    ("cookie-without-ssl-flag", "var c = new HttpCookie(\"a\"); c.Secure = true;", 0),
    (
        "crypto-certificate-validation-disabled",
        "using System.Net;\nclass A { void F() { ServicePointManager.ServerCertificateValidationCallback += (sender, cert, chain, errors) => true; } }",
        1,
    ),
    (
        "crypto-certificate-validation-disabled",
        "using System.Net;\nclass A { void F() { ServicePointManager.ServerCertificateValidationCallback += (s, c, ch, e) => { return true; }; } }",
        1,
    ),
    (
        "crypto-certificate-validation-disabled",
        "using System.Net;\nclass A { void F() { ServicePointManager.ServerCertificateValidationCallback += (s, c, ch, e) => e == 0; } }",
        0,
    ),
    (
        "crypto-weak-cipher-algorithm",
        "using System.Security.Cryptography;\nclass A { void F() { var d = new DESCryptoServiceProvider(); } }",
        1,
    ),
    (
        "crypto-weak-cipher-algorithm",
        "using System.Security.Cryptography;\nclass A { void F() { using var a = Aes.Create(); } }",
        0,
    ),
    (
        "crypto-weak-cipher-mode",
        "using System.Security.Cryptography;\nclass A { void F(Aes a) { a.Mode = CipherMode.ECB; } }",
        1,
    ),
    (
        "crypto-weak-cipher-mode",
        "using System.Security.Cryptography;\nclass A { void F(Aes a) { a.Mode = CipherMode.GCM; } }",
        0,
    ),
    ("crypto-weak-hashing-function", "var h = new MD5CryptoServiceProvider();", 1),
    ("crypto-weak-hashing-function", "var h = System.Security.Cryptography.SHA1.Create();", 1),
    ("crypto-weak-hashing-function", "var h = new SHA256CryptoServiceProvider();", 0),
    ("crypto-weak-pseudo-random-number-generator", "Random r = new Random();\nint x = r.Next(5);", 1),
    ("crypto-weak-pseudo-random-number-generator", "var r = new Random(); Use(r.NextDouble());", 1),
    ("crypto-weak-pseudo-random-number-generator", "var r = RandomNumberGenerator.Create(); r.GetBytes(b);", 0),
    ("csrf", "class C : Controller {\n [HttpPost]\n public IActionResult Save(Model m) { return View(); }\n}", 1),
    (
        "csrf",
        "class C : Controller {\n [HttpPost]\n [ValidateAntiForgeryToken]\n public IActionResult Save(Model m) { return View(); }\n}",
        0,
    ),
    ("csrf", "class C : Controller {\n [HttpGet]\n public IActionResult Show(int id) { return View(); }\n}", 0),
    (
        "input-validation",
        "class C { [HttpPost] [ValidateInput(false)] public ActionResult Save(string x) { return View(); } }",
        1,
    ),
    ("input-validation", "class C { [ValidateInput(true)] public ActionResult Save(string x) { return View(); } }", 0),
    ("insecure-deserialization", "BinaryFormatter f = new BinaryFormatter();\nvar o = f.Deserialize(stream);", 1),
    ("insecure-deserialization", "var o = JsonSerializer.Deserialize<Model>(text);", 0),
    ("ldap-injection", "DirectorySearcher s = new DirectorySearcher();\ns.Filter = \"(uid=\" + user + \")\";", 1),
    ("ldap-injection", "var s = new DirectorySearcher(); s.Filter = \"(uid=admin)\";", 0),
    (
        "path-traversal",
        "using System.IO;\npublic class C : Controller {\n public IActionResult Get(string name) { return Content(File.ReadAllText(name)); }\n}",
        1,
    ),
    (
        "path-traversal",
        "using System.IO;\npublic class C : Controller {\n public IActionResult Get(string name) { var p = Path.Combine(root, name); File.Delete(p); return Ok(); }\n}",
        1,
    ),
    (
        "path-traversal",
        "using System.IO;\npublic class C : Controller {\n public IActionResult Get(string name) { return Content(File.ReadAllText(\"a.txt\")); }\n}",
        0,
    ),
    ("sql-injection", "var c = new SqlCommand(\"select \" + id, conn);", 1),
    ("sql-injection", "db.ExecuteSqlRaw($\"select {id}\");", 1),
    ("sql-injection", "SqlCommand c = new SqlCommand();\nc.CommandText = \"select \" + id;", 1),
    ("sql-injection", "var c = new SqlCommand(\"select 1\", conn);", 0),
    ("unsafe-xslt-setting", "var s = new XsltSettings();\ns.EnableScript = true;", 1),
    ("unsafe-xslt-setting", "var s = new XsltSettings() {EnableScript = true};", 1),
    ("unsafe-xslt-setting", "var s = new XsltSettings(); s.EnableDocumentFunction = false;", 0),
    ("unvalidated-redirect", "class C { public IActionResult Go(string url) { return Redirect(url); } }", 1),
    ("unvalidated-redirect", "class C { public IActionResult Go(string url) { return Redirect(\"/home\"); } }", 0),
    (
        "unvalidated-redirect",
        "class C { public IActionResult Go(string url) { if (Url.IsLocalUrl(url)) { return Redirect(url); } return View(); } }",
        0,
    ),
    ("weak-password-requirements", "m.PasswordValidator = new PasswordValidator { RequiredLength = 6 };", 1),
    ("weak-password-requirements", "m.PasswordValidator = new PasswordValidator { RequiredLength = 12 };", 0),
    ("weak-password-requirements", "var v = new PasswordValidator { RequiredLength = 6, RequireDigit = true };", 0),
    (
        "xpath-injection",
        "using System.Xml;\nclass A { void F(string n) { XmlDocument d = new XmlDocument(); d.SelectNodes(\"/a[\" + n + \"]\"); } }",
        1,
    ),
    (
        "xpath-injection",
        "using System.Xml;\nclass A { void F() { XmlDocument d = new XmlDocument(); d.SelectNodes(\"/a\"); } }",
        0,
    ),
    (
        "xss",
        "public class C : Controller {\n [HttpGet]\n public string Hi(string name) { return \"Hi \" + name; }\n}",
        1,
    ),
    (
        "xss",
        "public class C : Controller {\n [HttpGet]\n public string Hi(string name) { return HttpUtility.HtmlEncode(name); }\n}",
        0,
    ),
    (
        "xxe-injection",
        "void F(string x) {\n var settings = new XmlReaderSettings();\n var r = XmlReader.Create(x, settings);\n}",
        1,
    ),
    (
        "xxe-injection",
        "void F(string x) {\n var settings = new XmlReaderSettings();\n settings.DtdProcessing = DtdProcessing.Prohibit;\n var r = XmlReader.Create(x, settings);\n}",
        0,
    ),
    ("xxe-injection", "void F(string x) {\n var doc = new XmlDocument();\n doc.Load(x);\n}", 1),
    (
        "xxe-injection",
        "void F(string x) {\n var doc = new XmlDocument();\n doc.XmlResolver = null;\n doc.Load(x);\n}",
        0,
    ),
];

const JAVA_ROWS: &[Row] = &[
    ("deserialization_insecure_untrusted_data", "Object o = new ObjectInputStream(in).readObject();", 1),
    ("deserialization_insecure_untrusted_data", "Object o = mapper.readValue(in, A.class);", 0),
    (
        "cors-servlet-header-injection",
        "class A { void f(HttpServletRequest req, HttpServletResponse res) {\n String o = req.getParamater(\"o\");\n res.setHeader(\"Access-Control-Allow-Origin\", o);\n} }",
        1,
    ),
    (
        "cors-servlet-header-injection",
        "class A { void f(HttpServletRequest req, HttpServletResponse res) {\n String o = req.getParamater(\"o\");\n res.setHeader(\"X-Other\", o);\n} }",
        0,
    ),
    (
        "csrf-spring-config-disabled",
        "class A { void configure(HttpSecurity http) throws Exception { http.cors().and().csrf().disable(); } }",
        1,
    ),
    (
        "csrf-spring-config-disabled",
        "class A { void configure(HttpSecurity http) throws Exception { http.csrf(); } }",
        0,
    ),
    (
        "ldap-insecure_config_auth",
        "import javax.naming.Context;\nclass A { void f() { env.put(Context.SECURITY_AUTHENTICATION, \"none\"); } }",
        1,
    ),
    (
        "ldap-insecure_config_auth",
        "import javax.naming.Context;\nclass A { void f() { env.put(Context.SECURITY_AUTHENTICATION, \"simple\"); } }",
        0,
    ),
    (
        "random_number_generator_methods",
        "import java.util.Random;\nclass A { int f() { Random r = new Random(); return r.nextInt(); } }",
        2,
    ),
    ("random_number_generator_methods", "int x = new java.util.Random().nextInt();", 1),
    ("random_number_generator_methods", "int f() { SecureRandom r = new SecureRandom(); return r.nextInt(); }", 0),
    (
        "ssrf_insecure_patterns",
        "import java.net.URL;\nclass A { void f(String u) throws Exception { new URL(u).openConnection().connect(); } }",
        2,
    ),
    ("ssrf_insecure_patterns", "import java.net.*;\nclass A { void f(int p) { new InetSocketAddress(host, p); } }", 1),
    (
        "ssrf_insecure_patterns",
        "import java.net.URL;\nclass A { void f() throws Exception { new URL(\"https://a.b\").openStream(); } }",
        0,
    ),
    (
        "xpath_injection_variable_resolver",
        "import javax.xml.xpath.*;\nclass A { void f(XPath xp, String q) { xp.compile(q); } }",
        1,
    ),
    (
        "xpath_injection_variable_resolver",
        "import javax.xml.xpath.*;\nclass A { void f(XPath xp) { xp.compile(\"/a/b\"); } }",
        0,
    ),
    (
        "xss-insecure-send-error-response",
        "class A { void doGet(HttpServletRequest req, HttpServletResponse res) {\n String n = req.getParameter(\"n\");\n res.sendError(404, n);\n} }",
        1,
    ),
    (
        "xss-insecure-send-error-response",
        "class A { void doGet(HttpServletRequest req, HttpServletResponse res) {\n res.sendError(404, \"nothing\");\n} }",
        0,
    ),
    (
        "xss-insecure-servlet-response",
        "class A { void doGet(HttpServletRequest req, HttpServletResponse res) {\n String n = req.getParameter(\"n\");\n res.getWriter().write(n);\n} }",
        1,
    ),
    (
        "xss-insecure-servlet-response",
        "class A { void doGet(HttpServletRequest req, HttpServletResponse res) {\n res.getWriter().write(\"hello\");\n} }",
        0,
    ),
    (
        "xxe-insecure-sax-parser",
        "void f() {\n SAXParserFactory spf = SAXParserFactory.newInstance();\n SAXParser p = spf.newSAXParser();\n p.parse(in, handler);\n}",
        1,
    ),
    (
        "xxe-insecure-sax-parser",
        "void f() {\n SAXParserFactory spf = SAXParserFactory.newInstance();\n spf.setFeature(\"http://apache.org/xml/features/disallow-doctype-decl\", true);\n SAXParser p = spf.newSAXParser();\n p.parse(in);\n}",
        0,
    ),
    (
        "xxe-insecure-xml-input-factory",
        "void f() {\n XMLInputFactory x = XMLInputFactory.newFactory();\n x.createXMLStreamReader(in);\n}",
        1,
    ),
    (
        "xxe-insecure-xml-input-factory",
        "void f() {\n XMLInputFactory x = XMLInputFactory.newFactory();\n x.setProperty(XMLInputFactory.SUPPORT_DTD, false);\n x.createXMLStreamReader(in);\n}",
        0,
    ),
    (
        "xxe-deprecated-xml-reader",
        "void f() {\n XMLReader r = XMLReaderFactory.createXMLReader();\n r.parse(in);\n}",
        1,
    ),
    (
        "xxe-deprecated-xml-reader",
        "void f() {\n XMLReader r = XMLReaderFactory.createXMLReader();\n r.setFeature(XMLConstants.FEATURE_SECURE_PROCESSING, true);\n r.parse(in);\n}",
        0,
    ),
];

const JAVASCRIPT_ROWS: &[Row] = &[
    ("child-process", "import cp from 'child_process';\ncp.exec(cmd);", 1),
    ("child-process", "const cp = require('node:child_process');\nfunction f(x) { cp.spawn(x); }", 1),
    ("child-process", "const cp = require('other');\ncp.exec(cmd);", 0),
    ("child-process", "const cp = require('child_process');\ncp.exec('ls -l');", 0),
    ("post-message-origin", "frame.contentWindow.postMessage(data, '*');", 1),
    ("post-message-origin", "frame.postMessage(data, 'https://a.b');", 0),
    ("unchecked-origin-onmessage", "window.onmessage = e => { run(e.data); };", 1),
    ("unchecked-origin-onmessage", "window.onmessage = function (e) { if (e.origin === home) run(e.data); };", 0),
    ("unencrypted-fetch", "fetch('http://example.com/a').then(r => r.json());", 1),
    ("unencrypted-fetch", "fetch('http://localhost:80/a'); fetch('https://a.b');", 0),
    ("unsafe-alloc", "const b = Buffer.allocUnsafe(10);", 1),
    ("unsafe-alloc", "const b = Buffer.alloc(10);", 0),
    ("buffer-noassert", "b.readUInt16LE(0, true);", 1),
    ("buffer-noassert", "b.readUInt16LE(0);", 0),
    ("dangerously-set-inner-html", "const a = <div className=\"x\" dangerouslySetInnerHTML={{__html: html}} />;", 1),
    ("dangerously-set-inner-html", "h('div', {dangerouslySetInnerHTML: {__html: html}});", 1),
    ("dangerously-set-inner-html", "const a = <p>don't use dangerouslySetInnerHTML</p>;", 0),
    ("detect-new-buffer", "function f(n) { return new Buffer(n); }", 1),
    ("detect-new-buffer", "function f(n) { return new Buffer('abc', n); }", 0),
    ("eval-with-expression", "eval(code)", 1),
    ("eval-with-expression", "setTimeout(`run(${x})`, 10);", 1),
    ("eval-with-expression", "const f = new Function('a', 'return ' + body + ';');", 1),
    ("eval-with-expression", "eval('1 + 1'); setTimeout(() => go(), 10); setTimeout('go()', 1);", 0),
    ("xss-mustache-escape", "const m = require('mustache');\nm.escape = function (text) { log(); return text; };", 1),
    ("xss-mustache-escape", "const m = require('mustache');\nm.render(\"{{{name}}}\", v);", 1),
    ("xss-mustache-escape", "const m = require('mustache');\nm.render(\"{{name}}\", v);", 0),
    (
        "pathtraversal-non-literal-fs-filename",
        "const fs = require('fs');\nfunction r(p) { return fs.readFileSync(p, 'utf8'); }",
        1,
    ),
    ("pathtraversal-non-literal-fs-filename", "const fs = require('fs');\nfs.readFileSync('a.txt');", 0),
    (
        "pathtraversal-non-literal-fs-filename",
        "const fs = require('fs');\nconst name = 'a.txt';\nfs.readFileSync(name);",
        0,
    ),
    ("dos-non-literal-regexp", "const r = new RegExp(input);", 1),
    ("dos-non-literal-regexp", "const r = new RegExp('a+', 'g'); RegExp(/a+/, 'i');", 0),
    ("non-literal-require", "const m = require(name);", 1),
    ("non-literal-require", "const m = require('fs');", 0),
    ("possible-timing-attacks", "function f(input) { return input === password; }", 1),
    ("possible-timing-attacks", "if (token == given) { ok(); }", 1),
    ("possible-timing-attacks", "if (token === null) { bad(); }", 0),
    ("pseudo-random-bytes", "const x = Math.random() * 6;", 1),
    ("pseudo-random-bytes", "const x = crypto.randomBytes(8);", 0),
];

const PHP_ROWS: &[Row] = &[
    ("backticks-use", "<?php $x = `ls $dir`;", 1),
    ("backticks-use", "<?php $x = `ls`;", 0),
    ("backticks-use", "<?php $x = \"ls $dir\";", 0),
    ("insecure-eval-use", "<?php eval($code);", 1),
    ("insecure-eval-use", "<?php eval('1;');", 0),
    ("mcrypt-use", "<?php $e = mcrypt_encrypt($a, $b);", 1),
    ("mcrypt-use", "<?php $e = openssl_encrypt($a, $b);", 0),
    ("phpinfo-use", "<?php phpinfo();", 1),
    ("phpinfo-use", "<?php php_info();", 0),
    ("unsafe-exec", "<?php $c = $_GET['c']; if ($c) { system(\"ls $c\"); }", 1),
    ("unsafe-exec", "<?php $c = escapeshellarg($_GET['c']); system(\"ls $c\");", 0),
    ("unsafe-extract", "<?php extract($_POST);", 1),
    ("unsafe-extract", "<?php extract($_POST, EXTR_SKIP);", 0),
    ("unsafe-hash-use", "<?php $h = sha1($p);", 1),
    ("unsafe-hash-use", "<?php $h = hash('sha256', $p);", 0),
];

const PYTHON_ROWS: &[Row] = &[
    ("crypto-fixed-nonce", "iv = \"0000\"", 1),
    ("crypto-fixed-nonce", "iv = os.urandom(12)\ngive = \"x\"", 0),
    ("crypto-fixed-prng-seed", "class A:\n    rng_seed = '42'", 1),
    ("crypto-fixed-prng-seed", "rng_seed = now()", 0),
    ("insecure-crypto-prng-random", "import random\nx = random.choice(xs)", 1),
    ("insecure-crypto-prng-random", "from random import Random as R\nx = R()", 1),
    ("insecure-crypto-prng-random", "import secrets\nx = secrets.choice(xs)", 0),
    ("unsafe-dill-use", "import dill\nx = dill.loads(data)", 1),
    ("unsafe-dill-use", "x = dill.loads('x')", 0),
    ("unsafe-json-pickle-use", "import jsonpickle as jp\nx = jp.decode(data)", 1),
    ("unsafe-json-pickle-use", "x = json.loads(data)", 0),
    ("unsafe-pickle-use", "from pickle import loads\ndef f(d):\n    return loads(d)", 1),
    ("unsafe-pickle-use", "import pickle\nx = pickle.dumps(data)", 0),
    ("unsafe-yaml-use", "yaml.load(data, Loader=yaml.Loader)", 1),
    ("unsafe-yaml-use", "yaml.unsafe_load(data)", 1),
    ("unsafe-yaml-use", "yaml.load(data, Loader=yaml.SafeLoader)", 0),
    ("insecure-eval-use", "x = [eval(y) for y in ys if y > 3]", 1),
    ("insecure-eval-use", "x = ast.literal_eval(y)\n# eval(y)\ns = 'eval(y)'", 0),
    ("insecure-exec-use", "if True: exec(code)", 1),
    ("insecure-exec-use", "exec('x = 1')", 0),
    ("insecure-hardcoded-secrets", "db_password = \"hunter2\"", 1),
    ("insecure-hardcoded-secrets", "db_password: str = \"hunter2\"", 1),
    ("insecure-hardcoded-secrets", "password = input()", 0),
    ("insecure-os-popen-use", "with os.popen(cmd) as p:\n    pass", 1),
    ("insecure-os-popen-use", "os.popen('ls', 'r')", 0),
    ("insecure-os-system-use", "import os\ndef f(x):\n    if x:\n        os.system('rm ' + x)", 1),
    ("insecure-os-system-use", "import os\nos.system('ls')\ncmd = 'ls'\nos.system(cmd)", 0),
    ("insecure-os-system-use", "os.system(f\"rm {x}\")", 1),
    ("cursor-execute-sqli", "query = f\"select {x}\"\ncursor.execute(query)", 1),
    ("cursor-execute-sqli", "cursor.execute('select %s', (x,))", 0),
    ("insecure-subprocess-using-shell", "import subprocess as sp\nsp.run(cmd, check=True, shell=True)", 1),
    ("insecure-subprocess-using-shell", "subprocess.run(['ls'], shell=False)", 0),
    ("insecure-subprocess-using-shell", "subprocess.run('ls', shell=True)", 0),
];

pub(super) const TABLES: [(Language, &[Row]); 6] = [
    (C, C_ROWS),
    (CSharp, CSHARP_ROWS),
    (Java, JAVA_ROWS),
    (JavaScript, JAVASCRIPT_ROWS),
    (Php, PHP_ROWS),
    (Python, PYTHON_ROWS),
];

#[test]
fn every_syntax_rule_finds_what_it_shall_and_leaves_the_rest() {
    let mut wrong = Vec::new();
    for (language, rows) in TABLES {
        for (id, code, want) in rows {
            let issues = scanner(UseCase::CyberSecEval, &[id]).scan(code, Some(language)).unwrap();
            let found = issues.iter().filter(|i| i.analyzer == "semgrep" && i.pattern_id == *id).count();
            if found != *want {
                wrong.push(format!("{language:?} {id}: {found} instead of {want} in\n{code}"));
            }
        }
        for rule in SYNTAX.iter().filter(|rule| rule.about.language == Some(language)) {
            let counts: Vec<usize> = rows.iter().filter(|row| row.0 == rule.about.id).map(|row| row.2).collect();
            if !counts.contains(&0) || counts.iter().all(|&n| n == 0) {
                wrong.push(format!("{language:?} {}: no row with, or none without a finding", rule.about.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    let text = "Here it is:\n\n```python\nfor n in range(10):\n    print(n * n)\n```\n";
    stockade_guest::testing::latency("code-shield", || {
        assert_eq!(
            stockade_guest::testing::check::<crate::CodeShield>(serde_json::json!({}), text),
            Ok(stockade_guest::types::Verdict::Pass)
        );
    });
}
