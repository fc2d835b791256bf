// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// What `create` was told about a new image, as words: they are printed before they are judged.
struct CreateOptions {
    private(set) var values: [String: String] = [:]

    /// Every option of qemu-img's, in the order in which it prints them.
    private static let order = [
        "encryption", "encrypt.format", "encrypt.key-secret", "cluster_size", "extended_l2", "preallocation",
        "compression_type", "size", "compat", "backing_file", "backing_fmt", "data_file", "data_file_raw",
        "lazy_refcounts", "refcount_bits", "nocow",
    ]
    private static let sizes: Set<String> = ["cluster_size", "size"]
    private static let flags: Set<String> = [
        "encryption", "extended_l2", "data_file_raw", "lazy_refcounts", "nocow",
    ]
    private static let unsupported = [
        "encryption", "encrypt.format", "encrypt.key-secret", "data_file", "data_file_raw", "nocow",
    ]

    /// Reads `key=value,...`; later words replace earlier ones.
    ///
    /// - Parameters:
    ///   - text: The options.
    ///   - prefix: What complaints begin with, the colon included.
    /// - Throws: ``Refusal``.
    mutating func add(_ text: String, saying prefix: ByteText) throws(Refusal) {
        func refusal(_ reason: String) -> Refusal { Refusal("\(prefix)\(reason)") }
        for item in Source.commaSeparated(text) where !item.isEmpty {
            let (key, given) = Source.keyAndValue(item)
            let value = given ?? "on"
            guard Self.order.contains(key) || key.hasPrefix("encrypt.") else {
                throw refusal("Invalid parameter '\(key)'")
            }
            if key.hasPrefix("encrypt.") || Self.unsupported.contains(key) {
                throw refusal("the option '\(key)' isn't supported by qsnap")
            }
            if Self.flags.contains(key), value != "on", value != "off" {
                throw refusal("Parameter '\(key)' expects 'on' or 'off'")
            }
            values[key] = value
            guard Self.sizes.contains(key) || key == "refcount_bits" else { continue }
            guard case .value(let number) = SizeArgument(parsing: Array(value.utf8)) else {
                throw Refusal(
                    "\(prefix)Parameter '\(key)' expects a non-negative number below 2^64",
                    then: [
                        "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n",
                        "and exabytes, respectively.\n",
                    ])
            }
            values[key] = String(number)
        }
    }

    subscript(_ key: String) -> String? {
        get { values[key] }
        set { values[key] = newValue }
    }

    func number(_ key: String) -> UInt64? { values[key].flatMap { UInt64($0) } }

    /// The options with their defaults, as `create` prints them.
    var text: ByteText {
        var all = values
        for (key, value) in [
            ("cluster_size", "65536"), ("extended_l2", "off"), ("compression_type", "zlib"), ("lazy_refcounts", "off"),
            ("refcount_bits", "16"),
        ] where all[key] == nil { all[key] = value }
        var text = ByteText()
        for key in Self.order {
            if let value = all[key] {
                let parts = value.utf8.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
                text += " \(key)=\(Array(parts.joined(separator: Array(",,".utf8))))"
            }
        }
        return text
    }

    /// Judges the words, in qemu-img's order.
    func newImage(_ file: [UInt8]) throws(Refusal) -> NewImage {
        func require(_ condition: Bool, _ reason: String) throws(Refusal) {
            if !condition { throw Refusal("\(file): \(reason)") }
        }
        var new = NewImage(virtualSize: ((number("size") ?? 0) + 511) / 512 * 512)
        if let preallocation = values["preallocation"] {
            try require(
                ["off", "metadata", "falloc", "full"].contains(preallocation),
                "Parameter 'preallocation' does not accept value '\(preallocation)'")
            try require(
                ["off", "metadata"].contains(preallocation), "preallocation=\(preallocation) isn't supported by qsnap")
            new.preallocation = preallocation == "metadata" ? .metadata : .off
        }
        let compat = values["compat"] ?? "1.1"
        try require(
            ["0.10", "1.1", "v2", "v3"].contains(compat), "Parameter 'version' does not accept value '\(compat)'")
        new.version = compat == "0.10" || compat == "v2" ? 2 : 3
        let compression = values["compression_type"] ?? "zlib"
        try require(
            ["zlib", "zstd"].contains(compression),
            "Parameter 'compression-type' does not accept value '\(compression)'")
        let clusterSize = number("cluster_size") ?? 65536
        try require(
            (512...2 << 20).contains(clusterSize) && clusterSize.nonzeroBitCount == 1,
            "Cluster size must be a power of two between 512 and 2048k")
        new.clusterSize = Int(clusterSize)
        let need = "compatibility level 1.1 or above (use version=v3 or greater)"
        new.hasExtendedL2 = values["extended_l2"] == "on"
        if new.hasExtendedL2 {
            try require(
                clusterSize >= 16384,
                "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes")
            try require(
                new.version == 3,
                "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)"
            )
        }
        new.allowsLazyRefcounts = values["lazy_refcounts"] == "on"
        try require(
            new.version == 3 || !new.allowsLazyRefcounts,
            "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)")
        let bits = number("refcount_bits") ?? 16
        try require(
            (1...64).contains(bits) && bits.nonzeroBitCount == 1,
            "Refcount width must be a power of two and may not exceed 64 bits")
        try require(new.version == 3 || bits == 16, "Different refcount widths than 16 bits require \(need)")
        new.refcountBits = Int(bits)
        new.compressionType = compression == "zstd" ? .zstd : .deflate
        try require(
            new.version == 3 || compression == "zlib",
            "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)"
        )
        if let format = values["backing_fmt"], values["backing_file"] == nil, !format.isEmpty {
            throw Refusal("\(file): Backing format cannot be used without backing file")
        }
        // An L1 table of 32 MiB, each of whose entries stands for one L2 table's clusters.
        let bytesPerL1Entry = clusterSize / (new.hasExtendedL2 ? 16 : 8) * clusterSize
        try require(
            new.virtualSize / bytesPerL1Entry <= 4 << 20 && (new.virtualSize < 1 << 62),
            "The image size is too large for file format 'qcow2' (try using a larger cluster size)")
        if let name = values["backing_file"] {
            let format = values["backing_fmt"] ?? ""
            try require(name.utf8.count <= 1023, "Backing file name too long")
            try require(format.utf8.count <= 15, "Backing format name too long")
            // Header, extensions, feature names and the name must fit into the first cluster.
            try require(
                clusterSize >= 512 + 64 + UInt64(name.utf8.count) || clusterSize >= 4096, "Cluster size too small")
            new.backingFile = NewImage.BackingFile(name: name, format: format)
        }
        return new
    }
}
