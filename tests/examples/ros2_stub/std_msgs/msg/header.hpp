/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What ros2_node.cc uses of the message of this name. The fields are those of ROS 2's .msg file. */
#ifndef ROS2_STUB_HEADER_HPP
#define ROS2_STUB_HEADER_HPP
#include <cstdint>
#include <string>

namespace builtin_interfaces::msg {
struct Time {
    int32_t sec = 0;
    uint32_t nanosec = 0;
};
} // namespace builtin_interfaces::msg

namespace std_msgs::msg {
struct Header {
    builtin_interfaces::msg::Time stamp;
    std::string frame_id;
};
} // namespace std_msgs::msg
#endif
