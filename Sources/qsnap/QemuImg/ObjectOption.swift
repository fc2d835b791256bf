// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Checks `--object TYPE,key=value,...`, which is only ever needed for keys, and so never by this program.
///
/// A secret's file isn't read.
///
/// - Throws: ``Refusal`` for what qemu-img refuses.
func checkObject(_ text: [UInt8]) throws(Refusal) {
    var type: String?
    var options: [String: String] = [:]
    for (index, item) in Source.commaSeparated(String(decoding: text, as: UTF8.self)).enumerated() where !item.isEmpty {
        let (key, value) = Source.keyAndValue(item)
        guard let value else {
            guard index == 0 else { throw Refusal("Expected '=' after parameter '\(item)'") }
            type = item
            continue
        }
        options[key] = value
    }
    guard let type = type ?? options.removeValue(forKey: "qom-type") else {
        throw Refusal("Parameter 'qom-type' is missing")
    }
    switch type {
    case "secret":
        guard options.removeValue(forKey: "id") != nil else { throw Refusal("Parameter 'id' is missing") }
        let known: Set<String> = ["data", "file", "format", "iv", "keyid", "loaded"]
        if let other = options.keys.sorted().first(where: { !known.contains($0) }) {
            throw Refusal("Parameter '\(other)' is unexpected")
        }
        guard options["data"] != nil || options["file"] != nil else {
            throw Refusal("Either 'file' or 'data' must be provided")
        }
    case "authz-list", "authz-list-file", "authz-pam", "authz-simple", "iothread", "main-loop", "secret_keyring",
        "throttle-group", "tls-creds-anon", "tls-creds-psk", "tls-creds-x509", "tls-cipher-suites":
        throw Refusal("objects of the type '\(type)' aren't supported by qsnap")
    default: throw Refusal("Parameter 'qom-type' does not accept value '\(type)'")
    }
}
