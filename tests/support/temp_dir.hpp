// SPDX-License-Identifier: MIT
//
// A fresh private directory that goes away with its object. Test support only.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_TEMP_DIR_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_TEMP_DIR_HPP

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

namespace test_support {

/// A directory of mode 0700 under TMPDIR (or /tmp), removed with all that is in it.
class TempDir {
  public:
    TempDir() {
        const char* variable = std::getenv("TMPDIR");
        std::string base = variable != nullptr && *variable != '\0' ? variable : "/tmp";
        // A unix socket's path has room for about 100 bytes.
        if (base.size() > 60) base = "/tmp";
        std::string pattern = base + "/codomyrmex-XXXXXX";
        if (::mkdtemp(pattern.data()) == nullptr) {
            throw std::system_error{errno, std::generic_category(), "mkdtemp " + pattern};
        }
        path_ = pattern;
    }

    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;

    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    [[nodiscard]] const std::string& path() const noexcept { return path_; }

    /// The path of `name` inside the directory. Nothing is made.
    [[nodiscard]] std::string file(std::string_view name) const {
        return path_ + "/" + std::string{name};
    }

  private:
    std::string path_;
};

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_TEMP_DIR_HPP
