// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// The target that the environment names; one program holds all of them, so that the library is built once.
private let target: FuzzTarget = {
    guard let name = variable("QCOW2_FUZZ"), let target = FuzzTarget(rawValue: name) else {
        complain("set QCOW2_FUZZ to one of: \(FuzzTarget.allCases.map(\.rawValue).joined(separator: " "))")
    }
    return target
}()

func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

func complain(_ text: String) -> Never {
    print("Fuzz: \(text)")
    fflush(nil)
    exit(64)
}

/// Ends the process in a way that libFuzzer takes for a crash, after saying why.
func fail(_ why: String) -> Never {
    print("FUZZ: \(why)")
    fflush(nil)
    abort()
}

@_cdecl("LLVMFuzzerInitialize")
public func initialize(_ count: UnsafeMutableRawPointer?, _ arguments: UnsafeMutableRawPointer?) -> CInt {
    guard let folder = variable("QCOW2_FUZZ_SEEDS") else { return 0 }
    writeSeeds(of: target, into: folder)
    exit(0)
}

@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ pointer: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    target.run(Array(UnsafeBufferPointer(start: pointer, count: count)))
    return 0
}
