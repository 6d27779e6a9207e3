/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The same node in ROS 2: images come from the topic "image", boxes go to "detections", texts to "answer", both with
 * the stamp and the frame id of their image. CMakeLists.txt and package.xml build it with colcon.
 *
 * Parameters: model (a checkpoint folder), prompt, deadline_ms (0: none), nice (0 to 19), leave_cpu_free. */
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/image.hpp>
#include <std_msgs/msg/header.hpp>
#include <std_msgs/msg/string.hpp>
#include <vision_msgs/msg/detection2_d_array.hpp>

#include "clock.h"
#include "node.h"

namespace {

using sensor_msgs::msg::Image;
using vision_msgs::msg::Detection2DArray;

/* What ROS calls the formats of pg_image: sensor_msgs/image_encodings.hpp. 0: it is none of them. */
int32_t format_of(const std::string &encoding) {
    static const std::map<std::string, int32_t> formats = {
        {"rgb8", PG_IMAGE_RGB8},     {"bgr8", PG_IMAGE_BGR8},    {"rgba8", PG_IMAGE_RGBA8},
        {"bgra8", PG_IMAGE_BGRA8},   {"mono8", PG_IMAGE_GRAY8},  {"8UC1", PG_IMAGE_GRAY8},
        {"mono16", PG_IMAGE_GRAY16}, {"16UC1", PG_IMAGE_GRAY16}, {"nv12", PG_IMAGE_NV12},
        {"nv21", PG_IMAGE_NV21},     {"yuyv", PG_IMAGE_YUYV},    {"yuv422_yuy2", PG_IMAGE_YUYV},
        {"uyvy", PG_IMAGE_UYVY},     {"yuv422", PG_IMAGE_UYVY},  {"8UC3", PG_IMAGE_BGR8},
    };
    const auto found = formats.find(encoding);
    return found == formats.end() ? 0 : found->second;
}

class PaligemmaNode : public rclcpp::Node {
   public:
    PaligemmaNode() : rclcpp::Node("paligemma_camera_node") {
        const std::string model = declare_parameter<std::string>("model", "");
        const std::string prompt = declare_parameter<std::string>("prompt", "detect red circle ; blue star");
        node_options options = {};
        options.model = model.c_str();
        options.prompt = prompt.c_str();
        options.deadline = declare_parameter<double>("deadline_ms", 0.0) * 1e-3;
        options.nice = static_cast<int32_t>(declare_parameter<int64_t>("nice", 0));
        options.leave_cpu = declare_parameter<bool>("leave_cpu_free", false) ? 1 : 0;
        options.publisher = {this, on_answer, on_dropped};
        if (node_open(&options, &node_) < 0) throw std::runtime_error(pg_last_error());
        detections_ = create_publisher<Detection2DArray>("detections", rclcpp::QoS(10));
        answers_ = create_publisher<std_msgs::msg::String>("answer", rclcpp::QoS(10));
        images_ = create_subscription<Image>("image", rclcpp::SensorDataQoS().keep_last(1),
                                             [this](const Image::ConstSharedPtr &image) { put(*image); });
        spinner_ = std::thread([this] {
            while (!stop_) node_spin(node_, 0.02);
        });
    }

    ~PaligemmaNode() override {
        images_.reset(); /* no frame comes any more */
        stop_ = true;
        spinner_.join();
        node_close(&node_);
    }

    PaligemmaNode(const PaligemmaNode &) = delete;
    PaligemmaNode &operator=(const PaligemmaNode &) = delete;

   private:
    /* The node copies the frame; the answer is published on the spinner's thread. */
    void put(const Image &message) {
        const int32_t format = format_of(message.encoding);
        if (format == 0) {
            RCLCPP_ERROR(get_logger(),
                         "images of encoding '%s' are not known; rgb8, bgr8, rgba8, bgra8, mono8, mono16, nv12, "
                         "nv21, yuyv and uyvy are",
                         message.encoding.c_str());
            return;
        }
        if (message.is_bigendian && format == PG_IMAGE_GRAY16) {
            RCLCPP_ERROR(get_logger(), "an image of encoding '%s' is big-endian; 16 bits are read little-endian",
                         message.encoding.c_str());
            return;
        }
        const rclcpp::Time stamp(message.header.stamp);
        const int64_t number = n_frames_++;
        pg_image image;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            headers_[number] = message.header;
        }
        pg_status status =
            pg_image_from_pixels(&image, sizeof image, format, static_cast<int32_t>(message.width),
                                 static_cast<int32_t>(message.height), message.data.data(), message.step);
        image.n_bytes = message.data.size();
        /* A header that was never stamped, or of another clock, would make latencies of years: only what is less than a
         * minute old counts. */
        int64_t age = (now() - stamp).nanoseconds();
        if (age < 0 || age > int64_t{60} * 1000000000) age = 0;
        if (status >= 0) status = node_put_frame(node_, &image, number, stamp.nanoseconds(), monotonic_ns() - age);
        if (status >= 0) return;
        RCLCPP_ERROR(get_logger(), "%s", pg_last_error());
        take_header(number);
    }

    std_msgs::msg::Header take_header(int64_t number) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto found = headers_.find(number);
        std_msgs::msg::Header header = std::move(found->second);
        headers_.erase(found);
        return header;
    }

    static void on_answer(void *user, const node_report *report) {
        static_cast<PaligemmaNode *>(user)->publish(*report);
    }

    static void on_dropped(void *user, const node_report *report) {
        auto *self = static_cast<PaligemmaNode *>(user);
        self->take_header(report->number);
        if (report->status == PG_ERROR_REPLACED)
            RCLCPP_DEBUG(self->get_logger(), "a newer frame took the place of frame %lld",
                         static_cast<long long>(report->number));
        else
            RCLCPP_WARN(self->get_logger(), "frame %lld has no answer: %s", static_cast<long long>(report->number),
                        report->text);
    }

    void publish(const node_report &report) {
        Detection2DArray message;
        message.header = take_header(report.number);
        for (int32_t i = 0; i < report.n_objects; i++) {
            const node_object &o = report.objects[i];
            vision_msgs::msg::Detection2D detection;
            vision_msgs::msg::ObjectHypothesisWithPose hypothesis;
            hypothesis.hypothesis.class_id = o.label;
            hypothesis.hypothesis.score = o.score;
            detection.header = message.header;
            detection.results.push_back(hypothesis);
            detection.bbox.center.position.x = (o.x_min + o.x_max) / 2;
            detection.bbox.center.position.y = (o.y_min + o.y_max) / 2;
            detection.bbox.size_x = o.x_max - o.x_min;
            detection.bbox.size_y = o.y_max - o.y_min;
            message.detections.push_back(detection);
        }
        std_msgs::msg::String text;
        text.data = report.text;
        detections_->publish(message);
        answers_->publish(text);
        RCLCPP_DEBUG(get_logger(), "frame %lld: %.1f ms", static_cast<long long>(report.number), report.latency * 1e3);
    }

    node *node_ = nullptr;
    int64_t n_frames_ = 0;
    std::atomic<bool> stop_{false};
    std::thread spinner_;
    std::mutex mutex_;
    std::map<int64_t, std_msgs::msg::Header> headers_; /* of frames under way */
    rclcpp::Publisher<Detection2DArray>::SharedPtr detections_;
    rclcpp::Publisher<std_msgs::msg::String>::SharedPtr answers_;
    rclcpp::Subscription<Image>::SharedPtr images_;
};

} // namespace

int main(int argc, char **argv) {
    rclcpp::init(argc, argv);
    int status = 0;
    try {
        rclcpp::spin(std::make_shared<PaligemmaNode>());
    } catch (const std::exception &e) {
        RCLCPP_FATAL(rclcpp::get_logger("paligemma_camera_node"), "%s", e.what());
        status = 1;
    }
    rclcpp::shutdown();
    return status;
}
