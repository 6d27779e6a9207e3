/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What ros2_node.cc uses of the message of this name. The fields are those of ROS 2's .msg file. */
#ifndef ROS2_STUB_STRING_HPP
#define ROS2_STUB_STRING_HPP
#include <string>

namespace std_msgs::msg {
struct String {
    std::string data;
};
} // namespace std_msgs::msg
#endif
