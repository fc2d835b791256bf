// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if os(Linux)
    #if canImport(Glibc)
        internal import Glibc
    #elseif canImport(Musl)
        internal import Musl
    #endif

    extension FileLock {
        /// The process that holds a lock on an open file, as text such as `qemu-system-x86 (process 4711)`.
        ///
        /// The kernel doesn't say whose such a lock is, but shows in `/proc` which open files have some; so this looks
        /// through the open files of all processes that may be looked at. Costs some milliseconds, and only when an
        /// image is in use.
        ///
        /// - Returns: `nil` when it can't be known: another user's process, or one on another machine.
        static func holder(of descriptor: Int32) -> String? {
            var status = stat()
            guard unsafe fstat(descriptor, &status) == 0 else { return nil }
            let inode = ":\(status.st_ino) "
            for process in names(in: "/proc") where process != String(getpid()) {
                guard let number = Int32(process) else { continue }
                for file in names(in: "/proc/\(process)/fdinfo") {
                    let isHolder = text(of: "/proc/\(process)/fdinfo/\(file)").split(separator: "\n").contains {
                        $0.hasPrefix("lock:") && $0.contains("OFDLCK") && $0.contains(inode)
                    }
                    guard isHolder else { continue }
                    let name = text(of: "/proc/\(process)/comm").prefix { $0 != "\n" }
                    return "\(escaped(name.utf8)) (process \(number))"
                }
            }
            return nil
        }

        /// What is in a folder.
        private static func names(in folder: String) -> [String] {
            // SAFETY: an entry's name is copied before the next one is read.
            guard let stream = unsafe opendir(folder) else { return [] }
            defer { _ = unsafe closedir(stream) }
            var names: [String] = []
            while let entry = unsafe readdir(stream) {
                let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                    unsafe pointer.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
                }
                if !name.hasPrefix(".") { names.append(name) }
            }
            return names
        }

        /// The start of a small file.
        private static func text(of path: String) -> String {
            let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { return "" }
            defer { _ = close(descriptor) }
            var bytes = [UInt8](repeating: 0, count: 4096)
            let count = unsafe read(descriptor, &bytes, bytes.count)
            return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
        }
    }
#endif
