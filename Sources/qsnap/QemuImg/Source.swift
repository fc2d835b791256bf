// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The file that a command works on: a path, `file:PATH`, `json:{...}`, or with `--image-opts` a list of options.
struct Source {
    /// The word as it was given, for messages.
    let word: [UInt8]
    /// The file's path.
    private(set) var path = ""
    /// What is wrong with the options, and is said when the file is opened.
    private(set) var problem: ByteText?
    /// The format that was asked for; `nil` to find out from the file.
    private(set) var format: String?
    private(set) var isReadOnly = false
    private(set) var sharesByForce: Bool?
    private(set) var takesLocks = true
    private(set) var discardsFreedClusters: Bool?
    /// Whether the path was given among options, so that there is no plain file name to show.
    let hasOptions: Bool

    /// Options of the format and of the file that mean nothing for what this command does.
    private static let harmless: Set<String> = [
        "node-name", "detect-zeroes", "discard", "auto-read-only", "cache.direct", "cache.no-flush", "cache.writeback",
        "lazy-refcounts", "pass-discard-request", "pass-discard-other", "overlap-check", "overlap-check.template",
        "cache-size", "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size", "cache-clean-interval",
        "encrypt.format", "encrypt.key-secret", "size", "offset",
        "file.node-name", "file.aio", "file.discard", "file.auto-read-only", "file.read-only", "file.cache.direct",
        "file.cache.no-flush", "file.x-check-cache-dropped", "file.drop-cache", "file.detect-zeroes",
    ]

    /// Reads a file argument.
    ///
    /// - Throws: ``Refusal`` in qemu-img's words; options that this program doesn't know are refused by name.
    init(_ word: [UInt8], format: [UInt8]? = nil, hasOptions: Bool, sharesByForce: Bool) throws(Refusal) {
        self.word = word
        self.hasOptions = hasOptions
        let name = String(decoding: word, as: UTF8.self)
        guard name.utf8.elementsEqual(word) else { throw refusal("the name isn't UTF-8, which isn't supported") }
        if hasOptions {
            try take(Self.options(in: name))
        } else if name.utf8.starts(with: "json:".utf8) {
            try takeJSON(String(name.unicodeScalars.dropFirst(5)))
        } else {
            path = try plainPath(name)
            if path.isEmpty { problem = "The 'file' block driver requires a file name" }
        }
        if let format { self.format = String(decoding: format, as: UTF8.self) }
        if sharesByForce {
            if self.sharesByForce == false { throw Refusal("--force-share/-U conflicts with image options") }
            self.sharesByForce = true
        }
    }

    /// A refusal to open this file.
    func refusal(_ reason: ByteText, then more: [ByteText] = []) -> Refusal {
        Refusal("Could not open '\(word)': \(reason)", then: more)
    }

    /// The path that a plain name means: what precedes a colon in front of the first slash is a protocol.
    private func plainPath(_ name: String) throws(Refusal) -> String {
        guard let scheme = Self.scheme(of: name) else { return name }
        guard scheme == "file" else { throw refusal("Unknown protocol '\(scheme)'") }
        let path = String(name.unicodeScalars.dropFirst(scheme.unicodeScalars.count + 1))
        // Where a colon could be taken for a protocol again, the path is shown as one in the current folder.
        return Self.scheme(of: path) == nil ? path : "./" + path
    }

    /// What precedes a colon in front of the first slash.
    private static func scheme(of name: String) -> String? {
        let start = name.unicodeScalars.prefix { $0 != ":" && $0 != "/" }
        guard start.endIndex < name.endIndex, name.unicodeScalars[start.endIndex] == ":" else { return nil }
        return String(start)
    }

    private mutating func takeJSON(_ text: String) throws(Refusal) {
        let parsed: ParsedJSON
        do throws(ParsedJSON.Failure) {
            parsed = try ParsedJSON(parsing: text)
        } catch {
            throw refusal("Could not parse the JSON options: \(error.message)")
        }
        guard case .object = parsed else { throw refusal("Invalid JSON object given") }
        try take(parsed.flattened())
    }

    /// Splits `key=value,key=value`, in which two commas are one of the value's.
    static func options(in text: String) -> [String: String] {
        var result: [String: String] = [:]
        for item in commaSeparated(text) where !item.isEmpty {
            let (key, value) = keyAndValue(item)
            // The word alone is a name of a block device.
            result[value == nil ? "" : key] = value ?? key
        }
        return result
    }

    /// Splits at the first equals sign, if there is one, whatever follows it.
    static func keyAndValue(_ item: String) -> (key: String, value: String?) {
        let key = item.unicodeScalars.prefix { $0 != "=" }
        guard key.endIndex < item.endIndex else { return (item, nil) }
        return (String(key), String(item.unicodeScalars[key.endIndex...].dropFirst()))
    }

    /// Splits at commas; two in a row are one of the text.
    static func commaSeparated(_ text: String) -> [String] {
        var items = [""]
        var rest = text.unicodeScalars[...]
        while let scalar = rest.popFirst() {
            if scalar != "," {
                items[items.count - 1].unicodeScalars.append(scalar)
            } else if rest.first == "," {
                rest.removeFirst()
                items[items.count - 1].unicodeScalars.append(",")
            } else {
                items.append("")
            }
        }
        return items
    }

    private mutating func take(_ given: [String: String]) throws(Refusal) {
        var options = given
        if let name = options[""] ?? options["file"] {
            throw refusal("Cannot find device='\(name)' nor node-name='\(name)'")
        }
        let driver = options.removeValue(forKey: "driver")
        guard driver != nil || options.keys.contains(where: { $0.hasPrefix("file.") }) else {
            throw refusal("Must specify either driver or file")
        }
        if driver == "file" {
            // The file itself, without a format: the same bytes as raw.
            for key in Array(options.keys) { options["file." + key] = options.removeValue(forKey: key) }
            format = "file"
        } else {
            format = driver
        }
        if let driver = options.removeValue(forKey: "file.driver"), driver != "file" {
            throw refusal("the protocol '\(driver)' isn't supported")
        }
        let name = options.removeValue(forKey: "file.filename")
        isReadOnly = try flag("read-only", in: &options) ?? false
        sharesByForce = try flag("force-share", in: &options)
        takesLocks = options.removeValue(forKey: "file.locking") != "off"
        discardsFreedClusters = try flag("pass-discard-snapshot", in: &options)
        guard let name else {
            let isAnyFile = options.keys.contains { $0.hasPrefix("file.") } || format == "file" || driver == nil
            problem =
                isAnyFile || given["file.driver"] != nil
                ? "The 'file' block driver requires a file name" : "A block device must be specified for \"file\""
            return
        }
        for key in options.keys.sorted() where !Self.harmless.contains(key) {
            if key.hasPrefix("file.") {
                problem = "Block protocol 'file' doesn't support the option '\(key.dropFirst(5))'"
            } else {
                problem = "Block format '\(driver ?? "qcow2")' does not support the option '\(key)'"
            }
            return
        }
        path = name
    }

    private func flag(_ key: String, in options: inout [String: String]) throws(Refusal) -> Bool? {
        guard let text = options.removeValue(forKey: key) else { return nil }
        switch text {
        case "on", "yes", "true", "y": return true
        case "off", "no", "false", "n": return false
        default: throw refusal("Parameter '\(key)' expects 'on' or 'off'")
        }
    }
}
