/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What ros2_node.cc uses of the message of this name. The fields are those of ROS 2's .msg file. */
#ifndef ROS2_STUB_IMAGE_HPP
#define ROS2_STUB_IMAGE_HPP
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <std_msgs/msg/header.hpp>

namespace sensor_msgs::msg {
struct Image {
    using ConstSharedPtr = std::shared_ptr<const Image>;
    std_msgs::msg::Header header;
    uint32_t height = 0, width = 0;
    std::string encoding;
    uint8_t is_bigendian = 0;
    uint32_t step = 0;
    std::vector<uint8_t> data;
};
} // namespace sensor_msgs::msg
#endif
