/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Stands in for ROS 2 where there is none: what ros2_node.cc uses of rclcpp, with its names and types, so that the
 * file is compiled and run by our tests. It was written from ROS 2's documentation; it is no copy of it, and no proof
 * that the file builds there.
 *
 * spin() reads images from stdin, each a line "ENCODING WIDTH HEIGHT STEP SEC NANOSEC FRAME_ID BYTES" and the bytes,
 * and hands each to the node; it goes on when the node has published or logged something. What is published and logged
 * are lines on stdout. Parameters are arguments: NAME:=VALUE. */
#ifndef ROS2_STUB_RCLCPP_HPP
#define ROS2_STUB_RCLCPP_HPP
#include <chrono>
#include <condition_variable>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <type_traits>

#include <sensor_msgs/msg/image.hpp>
#include <std_msgs/msg/string.hpp>
#include <vision_msgs/msg/detection2_d_array.hpp>

namespace rclcpp {

/* ---- lines on stdout, and what spin() waits for ---- */

struct stub_state {
    std::mutex mutex;
    std::condition_variable changed;
    int64_t n_lines = 0; /* that end what is to be said of an image */
    std::map<std::string, std::string> parameters;
    std::function<void(sensor_msgs::msg::Image::ConstSharedPtr)> on_image;
};

inline stub_state &stub() {
    static stub_state state;
    return state;
}

inline void stub_print(const std::string &line, bool last) {
    const std::lock_guard<std::mutex> lock(stub().mutex);
    std::cout << line << std::endl;
    stub().n_lines += last ? 1 : 0;
    stub().changed.notify_all();
}

inline void stub_publish(const std::string &topic, const std_msgs::msg::String &message) {
    stub_print(topic + " " + message.data, true);
}

inline void stub_publish(const std::string &topic, const vision_msgs::msg::Detection2DArray &message) {
    std::ostringstream line;
    line << topic << " " << message.header.stamp.sec << "." << message.header.stamp.nanosec << " "
         << message.header.frame_id;
    for (const auto &d : message.detections)
        line << "; " << d.results.at(0).hypothesis.class_id << " " << d.bbox.center.position.x << " "
             << d.bbox.center.position.y << " " << d.bbox.size_x << " " << d.bbox.size_y;
    stub_print(line.str(), false);
}

/* ---- logging ---- */

struct Logger {
    std::string name;
};
inline Logger get_logger(const std::string &name) { return {name}; }

__attribute__((format(printf, 3, 4))) inline void stub_log(const Logger &logger, const char *level, const char *format,
                                                           ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    stub_print(std::string("[") + level + "] [" + logger.name + "]: " + text, std::string(level) != "DEBUG");
}
#define RCLCPP_DEBUG(logger, ...) ::rclcpp::stub_log(logger, "DEBUG", __VA_ARGS__)
#define RCLCPP_WARN(logger, ...) ::rclcpp::stub_log(logger, "WARN", __VA_ARGS__)
#define RCLCPP_ERROR(logger, ...) ::rclcpp::stub_log(logger, "ERROR", __VA_ARGS__)
#define RCLCPP_FATAL(logger, ...) ::rclcpp::stub_log(logger, "FATAL", __VA_ARGS__)

/* ---- time and quality of service ---- */

class Duration {
   public:
    explicit Duration(int64_t ns) : ns_(ns) {}
    int64_t nanoseconds() const { return ns_; }

   private:
    int64_t ns_;
};

class Time {
   public:
    explicit Time(int64_t ns) : ns_(ns) {}
    explicit Time(const builtin_interfaces::msg::Time &t) : ns_(int64_t{t.sec} * 1000000000 + t.nanosec) {}
    int64_t nanoseconds() const { return ns_; }
    Duration operator-(const Time &other) const { return Duration(ns_ - other.ns_); }

   private:
    int64_t ns_;
};

class QoS {
   public:
    explicit QoS(size_t depth) : depth_(depth) {}
    QoS &keep_last(size_t depth) {
        depth_ = depth;
        return *this;
    }

   private:
    size_t depth_;
};

class SensorDataQoS : public QoS {
   public:
    SensorDataQoS() : QoS(5) {}
};

/* ---- nodes ---- */

template <typename Message>
class Publisher {
   public:
    using SharedPtr = std::shared_ptr<Publisher>;
    explicit Publisher(std::string topic) : topic_(std::move(topic)) {}
    void publish(const Message &message) { stub_publish(topic_, message); }

   private:
    std::string topic_;
};

template <typename Message>
class Subscription {
   public:
    using SharedPtr = std::shared_ptr<Subscription>;
};

class Node {
   public:
    explicit Node(const std::string &name) : name_(name) {}
    virtual ~Node() = default;
    Logger get_logger() const { return {name_}; }
    Time now() const {
        const auto since = std::chrono::system_clock::now().time_since_epoch();
        return Time(std::chrono::duration_cast<std::chrono::nanoseconds>(since).count());
    }
    template <typename T>
    T declare_parameter(const std::string &name, const T &value) {
        const auto given = stub().parameters.find(name);
        if (given == stub().parameters.end()) return value;
        if constexpr (std::is_same_v<T, std::string>) {
            return given->second;
        } else {
            T read{};
            std::istringstream(given->second) >> std::boolalpha >> read;
            return read;
        }
    }
    template <typename Message>
    std::shared_ptr<Publisher<Message>> create_publisher(const std::string &topic, const QoS &) {
        return std::make_shared<Publisher<Message>>(topic);
    }
    template <typename Message, typename Callback>
    std::shared_ptr<Subscription<Message>> create_subscription(const std::string &, const QoS &, Callback callback) {
        stub().on_image = callback;
        return std::make_shared<Subscription<Message>>();
    }

   private:
    std::string name_;
};

/* ---- the program ---- */

inline void init(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const std::string argument = argv[i];
        const size_t at = argument.find(":=");
        if (at != std::string::npos) stub().parameters[argument.substr(0, at)] = argument.substr(at + 2);
    }
}

inline void spin(const std::shared_ptr<Node> &) {
    auto image = std::make_shared<sensor_msgs::msg::Image>();
    size_t n_bytes = 0;
    while (std::cin >> image->encoding >> image->width >> image->height >> image->step >> image->header.stamp.sec >>
           image->header.stamp.nanosec >> image->header.frame_id >> n_bytes) {
        std::cin.ignore(); /* the end of the line */
        image->data.resize(n_bytes);
        std::cin.read(reinterpret_cast<char *>(image->data.data()), static_cast<std::streamsize>(n_bytes));
        std::unique_lock<std::mutex> lock(stub().mutex);
        const int64_t before = stub().n_lines;
        lock.unlock();
        stub().on_image(image);
        lock.lock();
        stub().changed.wait_for(lock, std::chrono::seconds(60), [before] { return stub().n_lines > before; });
    }
}

inline void shutdown() {}

} // namespace rclcpp
#endif
